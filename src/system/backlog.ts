// Collects what is to be done in the background, and does all that has come up at once: one look through a folder
// serves many. Nothing is begun while earlier work is running.
import type { Background } from './background.js';

export class Backlog<T> {
  readonly #background: Background;
  readonly #what: string;
  readonly #work: (items: ReadonlySet<T>) => Promise<void>;
  #items = new Set<T>();
  #isRunning = false;

  constructor(background: Background, what: string, work: (items: ReadonlySet<T>) => Promise<void>) {
    this.#background = background;
    this.#what = what;
    this.#work = work;
  }

  add(item: T): void {
    this.#items.add(item);
    if (this.#isRunning) return;
    this.#isRunning = true;
    this.#background.start(this.#what, () => this.#run());
  }

  async #run(): Promise<void> {
    try {
      while (this.#items.size > 0 && !this.#background.closed) {
        const items = this.#items;
        this.#items = new Set();
        await this.#work(items);
      }
    } finally {
      this.#isRunning = false;
    }
  }
}
