// How many trips of many clones run at once. Clones in one folder take the file system's locks, so threads beyond the
// number of processors only wait for each other, and one of Node's four threads is left to everybody else.
import { availableParallelism } from 'node:os';

const MOST = 3;

/** First come, first served. */
export class Lanes {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(lanes = Math.min(availableParallelism(), MOST)) {
    this.#free = lanes;
  }

  async run<T>(trip: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await trip();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next();
    }
  }
}
