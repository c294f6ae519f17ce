// Work in the background. Nobody waits for it, so a failure becomes a process warning.
// Also under fake timers of a test, which replace the global one: close() waits for what it starts.
import { setImmediate } from 'node:timers';
import { asRootfsError, hasCode } from './errors.js';

export class Background {
  readonly #work = new Set<Promise<void>>();
  #closed = false;

  /** Runs `work` after the caller's current turn, unless this is closed by then. The promise never rejects. */
  start(what: string, work: () => Promise<void>): Promise<void> {
    const done = new Promise((resolve) => setImmediate(resolve))
      .then(() => (this.#closed ? undefined : work()))
      .catch((error) => {
        if (this.#closed || hasCode(error, 'CLOSED')) return;
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

  /** Starts no more work, and waits for what is running. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.drain();
  }
}
