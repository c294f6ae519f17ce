// Where partial pulls lie: pulls/<manifest digest>/ in our own folder of the catalog, or of the folder of snapshots.
// One process at a time works on one. A later pull reuses its chunks (local-chunks.ts, keepWritten) and bytes of layers
// (fetch-file.ts).

import type { Stats } from 'node:fs';
import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { native } from '../addon/native.js';
import { withLock } from '../folder/folder-lock.js';
import { ManagedFolder } from '../folder/managed-folder.js';
import { hasCode } from '../system/errors.js';
import { isMissing } from '../system/is-missing.js';
import { makeFolders } from '../system/make-folders.js';
import type { Task } from '../system/task.js';

const KEPT_MS = 7 * 24 * 3600 * 1000;

export class PullFolder {
  readonly #folder: ManagedFolder;

  /** `statePath` is that of the folder which the content goes to, so that a rename can put it there. */
  constructor(statePath: string) {
    this.#folder = new ManagedFolder(`${statePath}/pulls`, 'folder of partial pulls');
  }

  get path(): string {
    return this.#folder.path;
  }

  /** Of pulls that run or were interrupted. */
  async files(): Promise<string[]> {
    const entries = await entriesOf(this.path);
    return entries.flatMap(({ path, stats }) => (stats.isFile() ? [path] : []));
  }

  /** Bytes on disk of all pulls but this one. */
  async bytesBeside(own: string): Promise<number> {
    const entries = await entriesOf(this.path);
    const others = entries.filter(({ path, stats }) => stats.isFile() && !path.startsWith(`${own}/`));
    return others.reduce((sum, { stats }) => sum + stats.blocks * 512, 0);
  }

  /** Waits until no other process pulls this digest. `work` gets the folder, which stays unless it is discarded. */
  hold<T>(task: Task, digest: string, work: (path: string) => Promise<T>): Promise<T> {
    const { name, path } = this.#located(digest);
    return this.#folder.use(async ({ handle }) => {
      for (let isHeld = false; ; ) {
        await makeFolders(path, 0o700);
        try {
          const result = await withLock(task, handle, name, () => {
            isHeld = true;
            return work(path);
          });
          if (result !== 'absent') return result;
        } catch (error) {
          // The other pull takes as long as it takes.
          const isBusy = hasCode(error, 'SLOT_BUSY');
          if (isHeld || !isBusy) throw error;
        }
      }
    });
  }

  discard(path: string): Promise<void> {
    return this.#folder.discard(path);
  }

  /** Discards what is left of a pull that was killed when its content had been put in place, unless one is running. */
  async forget(digest: string): Promise<void> {
    const { name, path } = this.#located(digest);
    if (await isMissing(path)) return;
    await this.#folder.use(async ({ handle }) => {
      const locked = await native().lockSlot(handle, name, false);
      if (locked === 'busy' || locked === 'absent') return;
      try {
        await this.discard(path);
      } finally {
        native().dispose(locked);
      }
    });
  }

  #located(digest: string): { readonly name: string; readonly path: string } {
    const name = digest.replace(':', '-');
    return { name, path: `${this.#folder.path}/${name}` };
  }

  /** Removes what nobody has worked on for a week. A pull that runs has its lock, and changes its folder. */
  async removeOld(task: Task, now = Date.now()): Promise<void> {
    if (await isMissing(this.#folder.path)) return;
    await this.#folder.use(async ({ handle }) => {
      for (const name of await readdir(this.#folder.path)) {
        if (!name.startsWith('sha256-')) continue;
        const path = `${this.#folder.path}/${name}`;
        const isOld = async () => now - ((await lastChange(path)) ?? now) >= KEPT_MS;
        if (!(await isOld())) continue;
        const discardOld = async () => {
          // A pull may have worked on it, and been interrupted, while the lock was waited for.
          if (await isOld()) await this.#folder.discard(path);
        };
        // The next pull tries again.
        await withLock(task, handle, name, discardOld).catch(() => {});
      }
    }, 'no-staging');
  }

  close(): Promise<void> {
    return this.#folder.close();
  }
}

/** When the folder, or anything in it, changed last. */
async function lastChange(path: string): Promise<number | undefined> {
  const times = (await entriesOf(path)).map(({ stats }) => stats.mtimeMs);
  return times.length === 0 ? undefined : times.reduce((a, b) => Math.max(a, b));
}

/** The folder and all in it. */
async function entriesOf(folder: string): Promise<{ readonly path: string; readonly stats: Stats }[]> {
  const inside = await readdir(folder, { recursive: true }).catch(() => []);
  const entries = await Promise.all(
    ['', ...inside].map(async (name) => {
      const path = join(folder, name);
      const stats = await lstat(path).catch(() => undefined);
      return stats && { path, stats };
    }),
  );
  return entries.filter((entry) => entry !== undefined);
}
