// Ready slots, in <clonesDir>/.microvm-rootfs/pool/<what they are>-<random>/: handing one out is a rename. All processes on the folder
// share them, and they outlive a restart. They are not flushed, which would cost more than they save: so one that another process made is
// looked at before it is used, since a power cut can have emptied it, and a `durable` clone is never taken from here. What they are holds
// their template's digest, so one whose template has changed is not found any more.
import { randomBytes } from 'node:crypto';
import { lstat, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Owner } from './arguments.js';
import { type ClonesFolder, STATE_FOLDER } from './clones-folder.js';
import { rootfsError } from './errors.js';
import { native } from './native.js';
import { CLONE_ROOTFS_FILE, CLONE_STAMP_FILE, parseStamp } from './stamps.js';

/** What a ready slot is: only a request for the very same can take it. */
export interface PoolKey {
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly owner: Owner | undefined;
  readonly mode: number | undefined;
}

/** Makes one ready slot of this kind under this name. */
export type MakeReady = (name: string) => Promise<void>;

/** Below this share of what was asked for the pool is filled again. */
const LOW_MARK = 0.5;

interface Line {
  readonly key: PoolKey;
  readonly prefix: string;
  readonly ready: string[];
  /** Names on disk that this process knows of, taken ones among them. */
  readonly seen: Set<string>;
  readonly count: number;
  readonly make: MakeReady;
  /** Asks for the same of the template as it is now. */
  readonly renew: () => Promise<void>;
  filling: Promise<void> | undefined;
}

export class Pool {
  readonly #folder: ClonesFolder;
  readonly #path: string;
  readonly #lines = new Map<string, Line>();
  readonly #work = new Set<Promise<void>>();
  #closed = false;

  constructor(folder: ClonesFolder) {
    this.#folder = folder;
    this.#path = join(folder.path, STATE_FOLDER, 'pool');
  }

  /** Keeps `count` ready slots of this kind from now on. Resolves when they are there. `renew` is called if the template changes. */
  async keep(key: PoolKey, count: number, make: MakeReady, renew: () => Promise<void>): Promise<void> {
    const prefix = prefixOf(key);
    const line: Line = {
      key,
      prefix,
      ready: this.#lines.get(prefix)?.ready ?? [],
      seen: this.#lines.get(prefix)?.seen ?? new Set(),
      count,
      make,
      renew,
      filling: undefined,
    };
    this.#lines.set(prefix, line);
    line.filling = this.#fill(line).finally(() => {
      line.filling = undefined;
    });
    await line.filling;
  }

  /** The name of a ready slot, to be taken by a rename; whoever does not take it gives it back. */
  take(key: PoolKey): string | undefined {
    if (this.#lines.size === 0) return undefined;
    const line = this.#lines.get(prefixOf(key));
    if (line === undefined) return undefined;
    const name = line.ready.pop();
    if (line.ready.length < line.count * LOW_MARK && line.filling === undefined) {
      line.filling = this.#behind(() => this.#fill(line)).finally(() => {
        line.filling = undefined;
      });
    }
    return name;
  }

  giveBack(key: PoolKey, name: string): void {
    this.#lines.get(prefixOf(key))?.ready.push(name);
  }

  /** A template has changed: its ready slots are of no use to anybody, and others are made in their place. */
  async drop(sha256: string): Promise<void> {
    for (const [prefix, line] of [...this.#lines]) {
      if (!prefix.startsWith(sha256)) continue;
      this.#lines.delete(prefix);
      this.#behind(line.renew);
    }
    await this.#folder.use(async ({ store }) => {
      for (const name of await readdir(this.#path)) {
        if (name.startsWith(sha256)) await native().discardFolder(store, 'pool', name);
      }
    });
    this.#folder.sweepInBackground();
  }

  async drain(): Promise<void> {
    while (this.#work.size > 0) await Promise.all(this.#work);
  }

  /** Fills no more. Ready slots stay for the next process. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#lines.clear();
    await this.drain();
  }

  /** After the clone that is under way, and behind its caller's back. */
  #behind(work: () => Promise<void>): Promise<void> {
    const done = new Promise((resolve) => setImmediate(resolve))
      .then(() => (this.#closed ? undefined : work()))
      .catch((error) => {
        process.emitWarning(
          `the pool is not filled: ${(rootfsError('making a ready slot', error) as Error).message}`,
          {
            code: 'MICROVM_ROOTFS_POOL',
          },
        );
      })
      .finally(() => this.#work.delete(done));
    this.#work.add(done);
    return done;
  }

  /** What lies on disk counts, whichever process made it. */
  async #fill(line: Line): Promise<void> {
    await this.#folder.use(async ({ store }) => {
      const there = new Set(await readdir(this.#path));
      // Those that another process took; one that this process takes meanwhile stays taken.
      const left = line.ready.filter((name) => there.has(name));
      line.ready.splice(0, line.ready.length, ...left);
      for (const name of there) {
        if (!name.startsWith(line.prefix) || line.seen.has(name)) continue;
        line.seen.add(name);
        if (await isWhole(join(this.#path, name), line.key)) line.ready.push(name);
        else await native().discardFolder(store, 'pool', name);
      }
      for (const name of line.seen) if (!there.has(name)) line.seen.delete(name);
    });
    while (line.ready.length < line.count && this.#lines.get(line.prefix) === line) {
      const name = `${line.prefix}${randomBytes(8).toString('hex')}`;
      line.seen.add(name);
      await line.make(name);
      line.ready.push(name);
    }
  }
}

function prefixOf({ sha256, sizeBytes, owner, mode }: PoolKey): string {
  const dress = `${owner === undefined ? '' : `o${owner.uid}.${owner.gid}-`}${mode === undefined ? '' : `m${mode.toString(8)}-`}`;
  return `${sha256}-${sizeBytes}-${dress}r`;
}

async function isWhole(path: string, { sha256, sizeBytes }: PoolKey): Promise<boolean> {
  try {
    const [stamp, image] = await Promise.all([
      readFile(join(path, CLONE_STAMP_FILE), 'utf8'),
      lstat(join(path, CLONE_ROOTFS_FILE)),
    ]);
    return parseStamp(stamp) === sha256 && image.isFile() && image.size === sizeBytes;
  } catch {
    return false; // taken by another process meanwhile, or not whole: of no use either way
  }
}
