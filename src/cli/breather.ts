// Lets signals and timers have their turn in long loops.
import { setImmediate } from 'node:timers/promises';

const HELD_MS = 5;

export class Breather {
  #since = performance.now();

  /** Whether the event loop was held for long: then `await breath()`. A promise for each round would cost more. */
  get due(): boolean {
    return performance.now() - this.#since > HELD_MS;
  }

  async breath(): Promise<void> {
    await setImmediate();
    this.#since = performance.now();
  }
}
