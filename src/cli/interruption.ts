// Ctrl-C and similar signals abort the operation, which then leaves nothing half-made. A second one ends the process.
import { constants } from 'node:os';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
type Name = (typeof SIGNALS)[number];

/** The reason that an operation was aborted for. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
  readonly signal: Name;
  readonly exitCode: number;

  constructor(signal: Name) {
    super(`interrupted by ${signal}`);
    this.signal = signal;
    // The convention of shells.
    this.exitCode = 128 + constants.signals[signal];
  }

  /**
   * Ends the process by the same signal when all is written. A shell ends its loop only if a program dies of Ctrl-C,
   * and systemd takes only that for a stop that went well. The exit status is left for where the signal has no effect:
   * in the first process of a container.
   */
  dieOfIt(): void {
    process.once('exit', () => process.kill(process.pid, this.signal));
  }
}

export class Interruption {
  readonly #controller = new AbortController();
  readonly #stopListening: () => void;

  constructor() {
    const listeners = SIGNALS.map((name) => ({
      name,
      listener: () => {
        this.#stopListening();
        this.#controller.abort(new Interrupted(name));
      },
    }));
    this.#stopListening = () => {
      for (const { name, listener } of listeners) process.off(name, listener);
    };
    for (const { name, listener } of listeners) process.on(name, listener);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  dispose(): void {
    this.#stopListening();
  }
}
