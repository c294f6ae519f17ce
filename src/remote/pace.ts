// How many requests and jobs of a transfer run at once.

import { withController } from '../system/on-abort.js';
import type { Task } from '../system/task.js';

/**
 * How many requests a transfer makes at once. Halved when the registry is too busy; then one more each time that as
 * many have succeeded.
 */
export class Pace {
  readonly #most: number;
  #limit: number;
  #requests = 0;
  #jobs = 0;
  /** Requests from before the last halving that have yet to answer: they would be turned away as well. */
  #sameBurst = 0;
  #succeeded = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(concurrency = 8) {
    this.#most = concurrency;
    this.#limit = concurrency;
  }

  readonly slowDown = (): void => {
    if (this.#sameBurst-- > 0) return;
    this.#sameBurst = Math.max(this.#requests, this.#jobs) - 1;
    this.#succeeded = 0;
    this.#limit = Math.max(1, Math.floor(this.#limit / 2));
  };

  #speedUp(): void {
    this.#sameBurst--;
    if (++this.#succeeded < this.#limit || this.#limit >= this.#most) return;
    this.#succeeded = 0;
    this.#limit++;
    this.#waiting.shift()?.();
  }

  /** Makes a request when it is its turn. */
  async request<T>(make: () => Promise<T>): Promise<T> {
    while (this.#requests >= this.#limit) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#requests++;
    try {
      return await make();
    } finally {
      this.#requests--;
      this.#waiting.shift()?.();
    }
  }

  /**
   * Runs jobs in order, a number of them at once, and no more than `atMost`. The first failure aborts the others, and
   * is what it rejects with.
   */
  async forEach<T>(
    task: Task,
    items: Iterable<T>,
    work: (task: Task, item: T) => Promise<void>,
    atMost = Number.POSITIVE_INFINITY,
  ): Promise<void> {
    await withController(task.signal, async (own) => {
      const either = task.endedBy(own.signal);
      const running = new Set<Promise<void>>();
      let failed: { readonly error: unknown } | undefined;
      const fail = (error: unknown) => {
        failed ??= { error };
        own.abort(error);
      };
      try {
        for (const item of items) {
          while (running.size >= Math.max(1, Math.min(this.#limit, atMost))) await Promise.race(running);
          if (failed !== undefined || task.signal?.aborted) break;
          const job: Promise<void> = work(either, item)
            .then(() => this.#speedUp(), fail)
            .finally(() => {
              this.#jobs--;
              running.delete(job);
            });
          this.#jobs++;
          running.add(job);
        }
      } catch (error) {
        // The list itself failed.
        fail(error);
      }
      await Promise.all(running);
      task.checkAborted();
      if (failed !== undefined) throw failed.error;
    });
  }
}
