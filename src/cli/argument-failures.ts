// The same work on several arguments: a failure of one does not stop the others.
import { RootfsError } from '../index.js';

export class ArgumentFailures {
  readonly #signal: AbortSignal;
  readonly #failures: { readonly name: string; readonly error: Error; readonly code: string }[] = [];

  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  /** Keeps a failure for {@link throwIfAny}. An abort, or a bug, is thrown at once. */
  async attempt(name: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (this.#signal.aborted || code === undefined) throw error;
      this.#failures.push({ name, error: error as Error, code });
    }
  }

  /** Throws a single failure unchanged. For several, the error names all, with the code of `gravest` if one has it. */
  throwIfAny(gravest?: string): void {
    const first = this.#failures.find(({ code }) => code === gravest) ?? this.#failures[0];
    if (first === undefined) return;
    if (this.#failures.length === 1) throw first.error;
    const names = this.#failures.map(({ name }) => name).join(', ');
    throw new RootfsError(
      first.code,
      `${this.#failures.length} failed: ${names}. First error (${first.name}): ${first.error.message}`,
      { cause: new AggregateError(this.#failures.map(({ error }) => error)) },
    );
  }
}
