// The folder of slots: opened when first needed, opened anew when it was moved or replaced, swept behind the caller's back.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { failedWith, isSystemError, RootfsError, rootfsError } from './errors.js';
import { inTurn } from './long-work.js';
import { type NativeStore, native } from './native.js';

/** What {@link ClonesFolder.sweep} removed. */
export interface SweepReport {
  readonly stagingRemoved: number;
  readonly trashRemoved: number;
}

/** Everything of our own lives in this folder of the clones folder; no slot can have a name with a dot. */
export const STATE_FOLDER = '.microvm-rootfs';

// Files and folders in one slice.
const SWEEP_BUDGET = 256;

// A folder that is replaced over and over is somebody's mistake, not bad luck.
const REOPEN_LIMIT = 3;

export class ClonesFolder {
  readonly path: string;
  #store: Promise<NativeStore> | undefined;
  #swept = false;
  #background: Promise<void> | undefined;
  #sweepAgain = false;
  #closed = false;

  constructor(path: string) {
    this.path = path;
  }

  /** Runs `work` with the open folder, and again with a new one if the folder proves to be another than the one that was opened. */
  async use<T>(work: (store: NativeStore) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const opening = this.#open();
      const store = await opening;
      try {
        return await work(store);
      } catch (error) {
        if (attempt >= REOPEN_LIMIT || !this.#isStale(error)) throw error;
        if (this.#store === opening) this.#store = undefined;
      }
    }
  }

  /** Empties trash and removes what dead processes left in staging, now. */
  async sweep(signal?: AbortSignal): Promise<SweepReport> {
    const total = { stagingRemoved: 0, trashRemoved: 0 };
    await this.use(async (store) => {
      for (let more = true; more; ) {
        const report = await inTurn('sweeping', signal, () => native().sweep(store, SWEEP_BUDGET));
        total.stagingRemoved += report.stagingRemoved;
        total.trashRemoved += report.trashRemoved;
        more = report.more;
      }
    });
    return total;
  }

  /** Starts a sweep behind the caller, or another one after the one that runs. */
  sweepInBackground(): void {
    if (this.#background !== undefined) {
      this.#sweepAgain = true;
      return;
    }
    this.#background = this.sweep()
      .then(
        () => {},
        (error) => {
          process.emitWarning(
            `emptying trash: ${(rootfsError(`sweeping ${this.path}`, error) as Error).message}`,
            {
              code: 'MICROVM_ROOTFS_SWEEP',
            },
          );
        },
      )
      .finally(() => {
        this.#background = undefined;
        if (this.#sweepAgain && !this.#closed) {
          this.#sweepAgain = false;
          this.sweepInBackground();
        }
      });
  }

  /** When no sweep is running or due. */
  async drain(): Promise<void> {
    while (this.#background !== undefined) await this.#background;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    await this.drain();
    this.#closed = true;
    if (this.#store === undefined) return;
    const store = await this.#store;
    this.#store = undefined;
    await native().leaveStore(store);
    native().dispose(store);
  }

  #open(): Promise<NativeStore> {
    if (this.#closed) {
      throw new RootfsError('CLOSED', 'the registry was closed: make a new one');
    }
    if (this.#store === undefined) {
      const opening = openStore(this.path);
      this.#store = opening;
      opening.then(
        () => {
          if (this.#swept) return;
          this.#swept = true;
          this.sweepInBackground();
        },
        () => {
          if (this.#store === opening) this.#store = undefined;
        },
      );
    }
    return this.#store;
  }

  /** The path names another folder by now, or our own folder in it was removed. */
  #isStale(error: unknown): boolean {
    if (failedWith(error, 'ESTALE')) return true;
    if (!failedWith(error, 'ENOENT') || !isSystemError(error)) return false;
    const ours = join(this.path, STATE_FOLDER);
    return (error.path?.startsWith(ours) ?? false) || (error.dest?.startsWith(ours) ?? false);
  }
}

async function openStore(path: string): Promise<NativeStore> {
  try {
    await mkdir(path, { recursive: true });
    return await native().openStore(path);
  } catch (error) {
    if (failedWith(error, 'EEXIST') || failedWith(error, 'ENOTDIR') || failedWith(error, 'ELOOP')) {
      throw new RootfsError(
        'CLONES_DIR_INVALID',
        `${path}, or ${STATE_FOLDER} in it, is not a folder: move it away`,
        {
          path,
          cause: error,
        },
      );
    }
    throw rootfsError(`opening the clones folder ${path}`, error);
  }
}
