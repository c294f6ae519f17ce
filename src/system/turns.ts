// A bound on how many jobs of one kind run at once. The others wait in order, where an abort reaches them.
import { abortError } from './errors.js';
import { onAbort } from './on-abort.js';
import type { Task } from './task.js';

type Start = () => void;

export class Turns {
  readonly #atOnce: number;
  readonly #waiting: Start[] = [];
  readonly #waitingBehind: Start[] = [];
  #running = 0;
  #lastWasAhead = false;

  constructor(atOnce: number) {
    this.#atOnce = atOnce;
  }

  /**
   * Runs `job` when it is its turn. Rejects with `ABORT_ERR` if it is aborted while it waits. Jobs `behind` are slices
   * of long work: while others wait as well, every second turn is theirs.
   */
  async run<T>(task: Task, job: () => Promise<T>, order: 'ahead' | 'behind' = 'ahead'): Promise<T> {
    task.checkAborted();
    if (this.#running < this.#atOnce) this.#running++;
    else await this.#turn(task, order === 'ahead' ? this.#waiting : this.#waitingBehind);
    try {
      return await job();
    } finally {
      const next = this.#next();
      if (next === undefined) this.#running--;
      else next();
    }
  }

  #next(): Start | undefined {
    const ahead = this.#waiting.length > 0 && (this.#waitingBehind.length === 0 || !this.#lastWasAhead);
    this.#lastWasAhead = ahead;
    return (ahead ? this.#waiting : this.#waitingBehind).shift();
  }

  #turn({ what, signal }: Task, waiting: Start[]): Promise<void> {
    return new Promise((resolve, reject) => {
      const start = () => {
        stop();
        resolve();
      };
      const stop = onAbort(signal, () => {
        stop();
        waiting.splice(waiting.indexOf(start), 1);
        reject(abortError(what, signal as AbortSignal));
      });
      waiting.push(start);
    });
  }
}
