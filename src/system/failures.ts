// One failure stops no upkeep: the rest is done, and what failed is reported in the end.

import { asRootfsError, RootfsError, withReport } from './errors.js';
import type { Task } from './task.js';

const PATHS_NAMED = 10;

export class Failures {
  readonly #task: Task;
  readonly #all: { readonly path: string; readonly error: RootfsError }[] = [];

  constructor(task: Task) {
    this.#task = task;
  }

  /** Keeps the error of work on `path` for {@link throwIfAny}. An abort, or a bug in a callback, ends the task. */
  async attempt<T>(path: string, work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      this.add(path, error);
      return undefined;
    }
  }

  /** The same for an error that was returned. */
  add(path: string, error: unknown): void {
    this.#task.checkAborted();
    const failure = asRootfsError(this.#task.what, error);
    if (!(failure instanceof RootfsError)) throw failure;
    this.#all.push({ path, error: failure });
  }

  /**
   * Throws a single failure with its own code and message. Of several it names all, with the code of the first and an
   * AggregateError as cause. The error has the `report` of what was done.
   */
  throwIfAny(report?: unknown): void {
    const [first] = this.#all;
    if (first === undefined) return;
    if (this.#all.length === 1) throw withReport(first.error, report);
    const errors = this.#all.map(({ error }) => error);
    const paths = this.#all.slice(0, PATHS_NAMED).map(({ path }) => path);
    const more = this.#all.length - paths.length;
    const named = more > 0 ? `${paths.join(', ')} and ${more} more` : paths.join(', ');
    const { code, message, path } = first.error;
    throw new RootfsError(
      code,
      `${this.#task.what}: ${errors.length} failures; everything else was done. Failed: ${named}. ` +
        `First error: ${message}`,
      { path: path ?? first.path, cause: new AggregateError(errors, `${errors.length} failures`), report },
    );
  }
}
