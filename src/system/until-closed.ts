// Reads of whole files: nobody can wait for their end, so close() ends them. It waits until their files are closed.
import { closedError } from './errors.js';
import { newController, onAbort, withController } from './on-abort.js';
import type { Task } from './task.js';

export class UntilClosed {
  readonly #ending = newController();
  readonly #running = new Set<Promise<unknown>>();

  /** Runs `work` with a task that {@link close} aborts. Rejects with `CLOSED` if it fails after that. */
  run<T>(task: Task, work: (task: Task) => Promise<T>): Promise<T> {
    const running = this.#run(task, work).finally(() => this.#running.delete(running));
    this.#running.add(running);
    return running;
  }

  async #run<T>(task: Task, work: (task: Task) => Promise<T>): Promise<T> {
    const ending = this.#ending.signal;
    return withController(task.signal, async (own) => {
      const stop = onAbort(ending, () => own.abort());
      try {
        if (ending.aborted) own.abort();
        return await work(task.endedBy(own.signal));
      } catch (error) {
        throw ending.aborted ? closedError() : error;
      } finally {
        stop();
      }
    });
  }

  /** Ends all work, also what is still to come, and waits for what is running. */
  async close(): Promise<void> {
    this.#ending.abort();
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
  }
}
