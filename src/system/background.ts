// Work behind the callers' backs. That it failed is a warning, since nobody waits for it.
import { asRootfsError } from './errors.js';

export class Background {
  readonly #work = new Set<Promise<void>>();
  #closed = false;

  /** Runs `work` after what the caller has under way, unless it is closed by then. The promise never rejects. */
  start(what: string, work: () => Promise<void>): Promise<void> {
    const done = new Promise((resolve) => setImmediate(resolve))
      .then(() => (this.#closed ? undefined : work()))
      .catch((error) => {
        if (this.#closed) return;
        const { message } = asRootfsError(what, error) as Error;
        process.emitWarning(message, { code: 'MICROVM_ROOTFS_BACKGROUND' });
      })
      .finally(() => this.#work.delete(done));
    this.#work.add(done);
    return done;
  }

  get closed(): boolean {
    return this.#closed;
  }

  async drain(): Promise<void> {
    while (this.#work.size > 0) await Promise.all(this.#work);
  }

  /** Starts nothing more, and waits for what runs. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.drain();
  }
}
