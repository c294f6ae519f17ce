// Does work once that many callers ask for at the same time. A caller that aborts does not affect the others. When the
// last caller has aborted, so is the work.
import { abortError } from './errors.js';
import { newController, onAbort } from './on-abort.js';
import type { Task } from './task.js';

interface Flight<T> {
  readonly result: Promise<T>;
  readonly controller: AbortController;
  passengers: number;
}

export class SingleFlight<T> {
  readonly #flights = new Map<string, Flight<T>>();

  has(key: string): boolean {
    return this.#flights.has(key);
  }

  /** Joins the running work for `key`, or starts it. */
  async join(key: string, task: Task, work: (task: Task) => Promise<T>): Promise<T> {
    task.checkAborted();
    const { what, signal } = task;
    const flight = this.#flights.get(key) ?? this.#start(key, task, work);
    flight.passengers++;
    let stay: () => void = () => {};
    const left = new Promise<never>((_, reject) => {
      stay = onAbort(signal, () => reject(abortError(what, signal as AbortSignal)));
    });
    try {
      return await Promise.race([flight.result, left]);
    } finally {
      stay();
      flight.passengers--;
      if (flight.passengers === 0) {
        flight.controller.abort();
        // A new caller must not join work that is being aborted.
        if (this.#flights.get(key) === flight) this.#flights.delete(key);
      }
    }
  }

  #start(key: string, task: Task, work: (task: Task) => Promise<T>): Flight<T> {
    const controller = newController();
    const flight: Flight<T> = { result: work(task.endedBy(controller.signal)), controller, passengers: 0 };
    this.#flights.set(key, flight);
    const done = () => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    };
    flight.result.then(done, done);
    return flight;
  }
}
