// Lets the event loop go on within the long loops that a hostile tar can cause.
import { setImmediate as nextTurn } from 'node:timers/promises';

/** The event loop is not held for longer. */
const TURN_MS = 4;

export class Pause {
  readonly #checkAborted: () => void;
  #since = performance.now();

  constructor(checkAborted: () => void) {
    this.#checkAborted = checkAborted;
  }

  /** To be called about once in a millisecond of work. */
  async ifDue(): Promise<void> {
    if (performance.now() - this.#since <= TURN_MS) return;
    await nextTurn();
    this.#checkAborted();
    this.#since = performance.now();
  }
}
