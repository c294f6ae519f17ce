// Templates as they were when they were last looked at: each with its digest, the state of the file that the digest is valid for, and a
// descriptor of that very file.

import { lstat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Identity, sameState } from '../addon/identity.js';
import { type NativeSource, native, type OpenedSource } from '../addon/native.js';
import { hashSource } from '../image/hash.js';
import { dropOldest } from '../system/drop-oldest.js';
import { asRootfsError, failedWith, RootfsError } from '../system/errors.js';
import { inTurn } from '../system/long-work.js';
import { SingleFlight } from '../system/single-flight.js';
import { Task } from '../system/task.js';
import type { DigestCache } from './digest-cache.js';

// Of descriptors Node lets a process have as many as the system allows at all, often 4,096.
const OPEN_LIMIT = 512;
const KNOWN_LIMIT = 10_000;

// Paths in one trip: less than a millisecond of work.
const BATCH = 256;

// Before Linux 6.13 time stamps advance with the kernel's tick, 10 ms at the slowest: two writes within one cannot be told apart.
const TIMES_DISTINCT_AFTER_MS = 20;

export interface Template {
  readonly path: string;
  readonly sha256: string;
  readonly identity: Identity;
}

interface Known extends Template {
  identity: Identity;
}

/** Computes the digest of a template that was just opened, or rejects with `TEMPLATE_CHANGED`. */
export type DigestOf = (task: Task, path: string, opened: OpenedSource) => Promise<string>;

/** Told of a template that is not as it was any more: another file or none has its path. */
export type OnChanged = (before: Template, gone: boolean) => void;

export class Templates {
  readonly #digests: DigestCache;
  readonly #onChanged: OnChanged;
  // The oldest go first.
  readonly #known = new Map<string, Known>();
  readonly #open = new Map<string, NativeSource>();
  readonly #hashing = new SingleFlight<Known>();
  #closed = false;

  constructor(digests: DigestCache, onChanged: OnChanged) {
    this.#digests = digests;
    this.#onChanged = onChanged;
  }

  /**
   * What is known of a template without any I/O, with an open descriptor. Whoever clones from it must compare its identity with the
   * file's, and call {@link look} if it differs.
   */
  remembered(path: string): { template: Template; source: NativeSource } | undefined {
    const template = this.#known.get(path);
    const source = this.#open.get(path);
    return template === undefined || source === undefined ? undefined : { template, source };
  }

  /** Those of these templates whose digest is known for the file as it is now, by path: neither opened nor read. */
  async known(paths: readonly string[], signal: AbortSignal | undefined): Promise<Map<string, Template>> {
    this.#refuseClosed();
    const found = new Map<string, Template>();
    const task = new Task('looking at templates', signal);
    for (let i = 0; i < paths.length; i += BATCH) {
      const batch = paths.slice(i, i + BATCH);
      task.checkAborted();
      const identities = await native().identities(batch);
      for (const [k, path] of batch.entries()) {
        const identity = identities[k];
        if (identity === undefined) continue;
        const template = this.#current(path, identity) ?? (await this.#learnt(path, identity));
        if (template !== undefined) found.set(path, template);
      }
    }
    return found;
  }

  /**
   * Looks at the template, and computes its digest unless it is known for the file as it is now. Undefined if there is none.
   * Rejects with `TEMPLATE_INVALID`, `TEMPLATE_CHANGED`, or the system's code.
   */
  async look(
    path: string,
    signal: AbortSignal | undefined,
    digestOf: DigestOf = hashUnchanged,
  ): Promise<Template | undefined> {
    this.#refuseClosed();
    const opened = await open(path);
    if (opened === undefined) {
      this.#forget(path);
      return undefined;
    }
    const { source } = opened;
    const { identity } = opened.info;
    const known = this.#current(path, identity) ?? (await this.#learnt(path, identity));
    if (known !== undefined) {
      this.#keepOpen(path, source);
      return known;
    }
    const task = new Task(`hashing template ${path}`, signal);
    // Of another file under the same path the digest is another.
    const { device, inode, sizeBytes, mtimeNs, ctimeNs } = identity;
    const key = `${device} ${inode} ${sizeBytes} ${mtimeNs} ${ctimeNs} ${path}`;
    if (this.#hashing.has(key)) native().dispose(source);
    return this.#hashing.join(key, task, async (shared) => {
      try {
        const sha256 = await digestOf(shared, path, opened);
        // A digest that outlives a power cut must not be of data that did not.
        await inTurn(shared, () => native().flushSource(source));
        await this.#digests.put(identity, sha256);
        const fresh = this.#remember({ path, sha256, identity });
        this.#keepOpen(path, source);
        return fresh;
      } catch (error) {
        native().dispose(source);
        throw asRootfsError(task.what, error);
      }
    });
  }

  /** After a clone that changed the template's count of links: the same contents under a new ctime. */
  update(template: Template, identity: Identity): void {
    this.#current(template.path, identity);
  }

  /** The size of the template with this digest, if it is known. */
  sizeOf(sha256: string): number | undefined {
    for (const known of this.#known.values()) {
      if (known.sha256 === sha256) return known.identity.sizeBytes;
    }
    return undefined;
  }

  close(): void {
    this.#closed = true;
    for (const source of this.#open.values()) native().dispose(source);
    this.#open.clear();
    this.#known.clear();
  }

  #refuseClosed(): void {
    if (this.#closed) throw new RootfsError('CLOSED', 'the registry was closed: make a new one');
  }

  /** What is known of the path, if it holds for this state of the file. */
  #current(path: string, identity: Identity): Template | undefined {
    const known = this.#known.get(path);
    if (known === undefined || !sameState(known.identity, identity)) return undefined;
    known.identity = identity;
    return known;
  }

  /** What was learnt before, perhaps by another process. */
  async #learnt(path: string, identity: Identity): Promise<Template | undefined> {
    const sha256 = await this.#digests.get(identity);
    return sha256 === undefined ? undefined : this.#remember({ path, sha256, identity });
  }

  #remember(fresh: Known): Known {
    const { path } = fresh;
    const before = this.#known.get(path);
    this.#known.delete(path);
    if (this.#closed) return fresh;
    this.#known.set(path, fresh);
    dropOldest(this.#known, KNOWN_LIMIT);
    // The descriptor is of the file that had the path before.
    if (before !== undefined) this.#letGo(path);
    if (before !== undefined && before.sha256 !== fresh.sha256) this.#onChanged(before, false);
    return fresh;
  }

  #forget(path: string): void {
    const before = this.#known.get(path);
    if (before === undefined) return;
    this.#known.delete(path);
    this.#letGo(path);
    this.#onChanged(before, true);
  }

  #keepOpen(path: string, source: NativeSource): void {
    this.#letGo(path);
    if (this.#closed) {
      native().dispose(source);
      return;
    }
    this.#open.set(path, source);
    dropOldest(this.#open, OPEN_LIMIT, (oldest) => native().dispose(oldest));
  }

  #letGo(path: string): void {
    const source = this.#open.get(path);
    if (source !== undefined) native().dispose(source);
    this.#open.delete(path);
  }
}

async function open(path: string): Promise<OpenedSource | undefined> {
  try {
    return await native().openSource(path);
  } catch (error) {
    if (failedWith(error, 'ENOTDIR')) return undefined;
    if (failedWith(error, 'ENOENT')) {
      const there = await lstat(path).catch(() => undefined);
      if (there === undefined) return undefined;
      if (!there.isSymbolicLink()) throw templateChangedError(path, 'was replaced while it was opened');
      throw new RootfsError(
        'TEMPLATE_INVALID',
        `template ${path} is a symbolic link to nothing; mend or remove it`,
        {
          path,
          cause: error,
        },
      );
    }
    if (failedWith(error, 'EINVAL')) {
      throw new RootfsError(
        'TEMPLATE_INVALID',
        `template ${path} is not a regular file; put the image itself there`,
        {
          path,
          cause: error,
        },
      );
    }
    throw asRootfsError(`opening template ${path}`, error);
  }
}

export function hashUnchanged(task: Task, path: string, opened: OpenedSource): Promise<string> {
  const { source, info } = opened;
  return unchanged(path, opened, () => hashSource(task, source, info.identity.sizeBytes));
}

/** Runs work whose result holds only if nobody writes to the template, or another image, meanwhile. */
export async function unchanged<T>(
  path: string,
  opened: OpenedSource,
  work: () => Promise<T>,
  refusal = templateChangedError,
): Promise<T> {
  const { source, info } = opened;
  if (opened.openForWriting) throw refusal(path, 'is open for writing in some process');
  const age = Date.now() - Number(info.identity.ctimeNs / 1_000_000n);
  if (age >= 0 && age < TIMES_DISTINCT_AFTER_MS) await sleep(TIMES_DISTINCT_AFTER_MS);
  const result = await work();
  const after = await native().checkSource(source);
  if (!sameState(info.identity, after.info.identity)) throw refusal(path, 'changed while it was read');
  if (after.openForWriting) throw refusal(path, 'was opened for writing while it was read');
  return result;
}

export function templateChangedError(path: string, how: string): RootfsError {
  return new RootfsError(
    'TEMPLATE_CHANGED',
    `template ${path} ${how}; write templates elsewhere and rename them into place when they are complete`,
    { path },
  );
}
