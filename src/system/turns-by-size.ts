// Turns of reading whole files. A file is open until it is read, and descriptors are few, so only so many are read at
// once. Anybody can make a file of holes a petabyte long: what is long waits for what is as long, and keeps nothing
// shorter waiting.
import type { Task } from './task.js';
import { Turns } from './turns.js';

// Seconds and minutes of work at the most; of anything longer nobody can say.
const SECONDS_BYTES = 2 ** 30;
export const MINUTES_BYTES = 2 ** 36;
const LIMITS = [SECONDS_BYTES, MINUTES_BYTES, Number.POSITIVE_INFINITY];

const LONG_AT_ONCE = 8;

class Longer extends Error {
  constructor(readonly sizeBytes: number) {
    super();
  }
}

export class TurnsBySize {
  readonly #turns: readonly Turns[];

  constructor(shortAtOnce: number) {
    this.#turns = LIMITS.map((_, i) => new Turns(i === 0 ? shortAtOnce : LONG_AT_ONCE));
  }

  /**
   * Runs `job`, which reads `sizeBytes` as far as is known, when it is its turn: see {@link requireAtMost}. Rejects
   * with `ABORT_ERR` if it is aborted while it waits.
   */
  async run<T>(task: Task, sizeBytes: number, job: (limitBytes: number) => Promise<T>): Promise<T> {
    const place = LIMITS.findIndex((limitBytes) => sizeBytes <= limitBytes);
    try {
      return await (this.#turns[place] as Turns).run(task, () => job(LIMITS[place] as number));
    } catch (error) {
      if (error instanceof Longer) return this.run(task, error.sizeBytes, job);
      throw error;
    }
  }
}

/** A job that has more to read than its turn is for closes what it has open, and is run again in a turn for that. */
export function requireAtMost(limitBytes: number, sizeBytes: number): void {
  if (sizeBytes > limitBytes) throw new Longer(sizeBytes);
}
