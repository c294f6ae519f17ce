// A bound on how many jobs of one kind run at once. The others wait in order, where an abort reaches them.
import { abortError } from './errors.js';
import { onAbort } from './on-abort.js';
import type { Task } from './task.js';

interface Waiter {
  readonly start: () => void;
  readonly signal: AbortSignal | undefined;
}

/** Any number wait: an array would move all that follow one that leaves, and a Set walks over those that have left. */
class Queue {
  readonly #waiting = new Map<number, Waiter>();
  #serving = 0;
  #next = 0;

  get isEmpty(): boolean {
    return this.#waiting.size === 0;
  }

  /** Returns the ticket to {@link leave} with. */
  join(waiter: Waiter): number {
    this.#waiting.set(this.#next, waiter);
    return this.#next++;
  }

  leave(ticket: number): void {
    this.#waiting.delete(ticket);
  }

  /** Whoever is aborted and not told yet loses the turn: see {@link onAbort}. */
  shift(): Waiter | undefined {
    while (!this.isEmpty) {
      const waiter = this.#waiting.get(this.#serving);
      this.#waiting.delete(this.#serving++);
      if (waiter !== undefined && !waiter.signal?.aborted) return waiter;
    }
    return undefined;
  }
}

export class Turns {
  readonly #atOnce: number;
  readonly #waiting = new Queue();
  readonly #waitingBehind = new Queue();
  #running = 0;
  #lastWasAhead = false;

  constructor(atOnce: number) {
    this.#atOnce = atOnce;
  }

  /**
   * Runs `job` when it is its turn. Rejects with `ABORT_ERR` if it is aborted while it waits. Jobs `behind` are slices
   * of long work: while others wait as well, every second turn is theirs. A job can end its turn before it is done.
   */
  async run<T>(
    task: Task,
    job: (endTurn: () => void) => Promise<T>,
    order: 'ahead' | 'behind' = 'ahead',
  ): Promise<T> {
    task.checkAborted();
    if (this.#running < this.#atOnce) this.#running++;
    else await this.#turn(task, order === 'ahead' ? this.#waiting : this.#waitingBehind);
    let ended = false;
    const endTurn = () => {
      if (ended) return;
      ended = true;
      const next = this.#next();
      if (next === undefined) this.#running--;
      else next.start();
    };
    try {
      return await job(endTurn);
    } finally {
      endTurn();
    }
  }

  #next(): Waiter | undefined {
    const ahead = !this.#waiting.isEmpty && (this.#waitingBehind.isEmpty || !this.#lastWasAhead);
    this.#lastWasAhead = ahead;
    const [first, second] = ahead
      ? [this.#waiting, this.#waitingBehind]
      : [this.#waitingBehind, this.#waiting];
    return first.shift() ?? second.shift();
  }

  #turn({ what, signal }: Task, waiting: Queue): Promise<void> {
    return new Promise((resolve, reject) => {
      const start = () => {
        stop();
        resolve();
      };
      const ticket = waiting.join({ start, signal });
      const stop = onAbort(signal, () => {
        stop();
        waiting.leave(ticket);
        reject(abortError(what, signal as AbortSignal));
      });
    });
  }
}
