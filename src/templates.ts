// Templates as they were when they were last looked at: each with its digest, the state of the file that the digest is valid for, and a
// descriptor of that very file.
import { lstat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DigestCache } from './digest-cache.js';
import { failedWith, RootfsError, rootfsError } from './errors.js';
import { hashSource } from './hash.js';
import { type Identity, sameState } from './identity.js';
import { type NativeSource, native, type OpenedSource } from './native.js';
import { SingleFlight } from './single-flight.js';

// Descriptors are dear, digests are cheap.
const OPEN_LIMIT = 64;
const KNOWN_LIMIT = 10_000;

// Before Linux 6.13 time stamps advance with the kernel's tick, 10 ms at the slowest: two writes within one cannot be told apart.
const SETTLED_AFTER_MS = 20;

export interface Template {
  readonly path: string;
  readonly sha256: string;
  readonly identity: Identity;
}

interface Known extends Template {
  identity: Identity;
  source: NativeSource | undefined;
}

/** Computes the digest of a template that was just opened, or rejects with `TEMPLATE_CHANGED`. */
export type DigestOf = (path: string, opened: OpenedSource, signal: AbortSignal) => Promise<string>;

export class Templates {
  readonly #digests: DigestCache;
  /** In order of last use, so that the least used are dropped first. */
  readonly #known = new Map<string, Known>();
  readonly #hashing = new SingleFlight<Known>();

  constructor(digests: DigestCache) {
    this.#digests = digests;
  }

  /**
   * What is known of a template without any I/O, with an open descriptor. Whoever clones from it must compare its identity with the
   * file's, and call {@link look} if it differs.
   */
  remembered(path: string): { template: Template; source: NativeSource } | undefined {
    const known = this.#known.get(path);
    return known?.source === undefined ? undefined : { template: known, source: known.source };
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
    const opened = await open(path);
    if (opened === undefined) return undefined;
    const { identity } = opened.info;
    const known = this.#known.get(path);
    if (known !== undefined && sameState(known.identity, identity)) {
      known.identity = identity;
      this.#keep(known, opened.source);
      return known;
    }
    const what = `hashing template ${path}`;
    if (this.#hashing.has(path)) native().dispose(opened.source);
    return this.#hashing.join(path, what, signal, async (shared) => {
      try {
        let sha256 = await this.#digests.get(identity);
        if (sha256 === undefined) {
          sha256 = await digestOf(path, opened, shared);
          await this.#digests.put(identity, sha256);
        }
        const fresh: Known = { path, sha256, identity, source: undefined };
        this.#keep(fresh, opened.source);
        return fresh;
      } catch (error) {
        native().dispose(opened.source);
        throw rootfsError(what, error);
      }
    });
  }

  /** After a clone that changed the template's count of links: the same contents under a new ctime. */
  update(template: Template, identity: Identity): void {
    const known = this.#known.get(template.path);
    if (known !== undefined && sameState(known.identity, identity)) known.identity = identity;
  }

  /** The size of the template with this digest, if it is known. */
  sizeOf(sha256: string): number | undefined {
    for (const known of this.#known.values()) {
      if (known.sha256 === sha256) return known.identity.sizeBytes;
    }
    return undefined;
  }

  close(): void {
    for (const known of this.#known.values()) letGo(known);
    this.#known.clear();
  }

  #keep(known: Known, source: NativeSource): void {
    const previous = this.#known.get(known.path);
    if (previous !== undefined) letGo(previous);
    known.source = source;
    this.#known.delete(known.path);
    this.#known.set(known.path, known);
    this.#trim();
  }

  #trim(): void {
    let open = 0;
    const newestFirst = [...this.#known.values()].reverse();
    newestFirst.forEach((known, index) => {
      if (known.source !== undefined && ++open > OPEN_LIMIT) letGo(known);
      if (index >= KNOWN_LIMIT) this.#known.delete(known.path);
    });
  }
}

function letGo(known: Known): void {
  if (known.source !== undefined) native().dispose(known.source);
  known.source = undefined;
}

async function open(path: string): Promise<OpenedSource | undefined> {
  try {
    return await native().openSource(path);
  } catch (error) {
    if (failedWith(error, 'ENOTDIR')) return undefined;
    if (failedWith(error, 'ENOENT')) {
      if (await isMissing(path)) return undefined;
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
    throw rootfsError(`opening template ${path}`, error);
  }
}

async function isMissing(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return false;
  } catch {
    return true;
  }
}

export function hashUnchanged(path: string, opened: OpenedSource, signal: AbortSignal): Promise<string> {
  const { source, info } = opened;
  return unchanged(path, opened, () =>
    hashSource(`hashing template ${path}`, source, info.identity.sizeBytes, signal),
  );
}

/** Runs work whose result holds only if nobody writes to the template meanwhile. */
export async function unchanged<T>(path: string, opened: OpenedSource, work: () => Promise<T>): Promise<T> {
  const { source, info } = opened;
  if (opened.openForWriting) throw changed(path, 'is open for writing in some process');
  const age = Date.now() - Number(info.identity.ctimeNs / 1_000_000n);
  if (age >= 0 && age < SETTLED_AFTER_MS) await sleep(SETTLED_AFTER_MS);
  const result = await work();
  const after = await native().checkSource(source);
  if (!sameState(info.identity, after.info.identity)) throw changed(path, 'changed while it was read');
  if (after.openForWriting) throw changed(path, 'was opened for writing while it was read');
  return result;
}

export function changed(path: string, how: string): RootfsError {
  return new RootfsError(
    'TEMPLATE_CHANGED',
    `template ${path} ${how}; write templates elsewhere and rename them into place when they are complete`,
    { path },
  );
}
