// Caches templates: the digest of each, the file state that the digest is valid for, and an open descriptor of that
// file.

import { setTimeout as sleep } from 'node:timers/promises';
import { type Identity, identical, sameFile } from '../addon/identity.js';
import { type NativeSource, native, type OpenedSource } from '../addon/native.js';
import { hasWholeSeconds } from '../image/file-times.js';
import { shareOfDescriptors } from '../system/descriptor-limit.js';
import { dropOldest } from '../system/drop-oldest.js';
import { asRootfsError, closedError, hasCode } from '../system/errors.js';
import { inTurn } from '../system/long-work.js';
import { SingleFlight } from '../system/single-flight.js';
import { Task } from '../system/task.js';
import { Turns } from '../system/turns.js';
import type { UntilClosed } from '../system/until-closed.js';
import type { LocatedFile } from './digest-record.js';
import type { DigestStore } from './digest-store.js';
import { isReplaced, openTemplate, waitForDistinctTime } from './open-template.js';
import {
  hashUnchanged,
  sameTemplate,
  sameWhileRead,
  type Template,
  templateChangedError,
} from './template.js';

const OPEN_LIMIT = shareOfDescriptors(512);

// Most templates that are gone are never asked for again.
const KNOWN_LIMIT = 100_000;

// Paths per native call: less than a millisecond of work.
const BATCH = 256;

// For the records of files that another process has just linked. It saves them within 20 ms, if it is not held up.
const WAITS_MS = [5, 10, 20, 40, 80, 160];

// A round is lost if another process replaces the template at the same moment.
const ROUNDS = 8;

// Each holds a descriptor, also while it waits to hash.
const looks = new Turns(shareOfDescriptors(128));

interface Known extends LocatedFile {
  readonly sha256: string;
  identity: Identity;
}

/** Of all registries in this process that have some open. */
const open = new Set<WeakRef<Templates>>();

/**
 * Asks again who has a clone's image open, while this process has it open as no template: a hardlink is the template.
 * Undefined if it is none.
 */
export async function askWithoutTemplate<T>(image: string, ask: () => Promise<T>): Promise<T | undefined> {
  const [identity] = await native().identities([image]);
  if (identity === undefined || identity.links === 1) return undefined;
  const closed: [Templates, string][] = [];
  for (const ref of open) {
    const templates = ref.deref();
    if (templates === undefined) open.delete(ref);
    for (const path of templates?.closeFile(identity) ?? []) closed.push([templates as Templates, path]);
  }
  if (closed.length === 0) return undefined;
  try {
    return await ask();
  } finally {
    // Else the next clone would not be warm.
    for (const [templates, path] of closed) await templates.reopen(path).catch(() => {});
  }
}

/** Computes the digest of a template that was just opened. Rejects with `TEMPLATE_CHANGED`. */
export type DigestOf = (task: Task, path: string, opened: OpenedSource) => Promise<string>;

/** Called when a template has changed: its path has another file, or none. */
type OnChanged = (before: Template, gone: boolean) => void;

export class Templates {
  readonly #digests: DigestStore;
  readonly #reads: UntilClosed;
  readonly #onChanged: OnChanged;
  readonly #known = new Map<string, Known>();
  readonly #sizes = new Map<string, number>();
  // The oldest are dropped first.
  readonly #open = new Map<string, NativeSource>();
  readonly #hashing = new SingleFlight<Known>();
  #closed = false;
  readonly #self = new WeakRef(this);

  constructor(digests: DigestStore, reads: UntilClosed, onChanged: OnChanged) {
    this.#digests = digests;
    this.#reads = reads;
    this.#onChanged = onChanged;
  }

  /**
   * Returns what is known of a template without any I/O, with an open descriptor. A caller that clones from it must
   * compare its identity with the file's, and call {@link look} if it differs.
   */
  remembered(path: string): { template: Template; source: NativeSource } | undefined {
    const template = this.#known.get(path);
    const source = this.#open.get(path);
    return template === undefined || source === undefined ? undefined : { template, source };
  }

  /** What is known of a template, even if it is closed. */
  recalled(path: string): Template | undefined {
    return this.#known.get(path);
  }

  /** Opens a template that was closed, if it is unchanged, so that {@link remembered} finds it. Hashes nothing. */
  async reopen(path: string): Promise<void> {
    this.#refuseClosed();
    const opened = await openTemplate(path);
    if (opened === undefined) return;
    const { source, info, filesystem } = opened;
    if (this.#current({ path, identity: info.identity, filesystem }) === undefined) native().dispose(source);
    else this.#keepOpen(path, source);
  }

  /**
   * Returns for each path its template, if its digest is known for the current state of the file. Neither opens nor
   * reads them.
   */
  async known(paths: readonly string[], signal: AbortSignal | undefined): Promise<(Template | undefined)[]> {
    this.#refuseClosed();
    const found: (Template | undefined)[] = [];
    const task = new Task('looking at templates', signal);
    const batches = Array.from({ length: Math.ceil(paths.length / BATCH) }, (_, i) =>
      paths.slice(i * BATCH, (i + 1) * BATCH),
    );
    const look = (batch: readonly string[] | undefined) => {
      const identities = batch && native().identities(batch);
      // If this rejects earlier, nobody waits for it, and its failure must not end the process.
      identities?.catch(() => {});
      return identities;
    };
    let ahead = look(batches[0]);
    for (const [i, batch] of batches.entries()) {
      const identities = (await ahead) ?? [];
      task.checkAborted();
      // Meanwhile this thread works on these.
      ahead = look(batches[i + 1]);
      const others: LocatedFile[] = [];
      const places: number[] = [];
      for (const [k, path] of batch.entries()) {
        const identity = identities[k];
        const file = identity && { path, identity, filesystem: identity.filesystem };
        const template = file && this.#current(file);
        const place = found.push(template) - 1;
        if (file === undefined || template !== undefined) continue;
        others.push(file);
        places.push(place);
      }
      const learnt = await this.#learnt(others);
      for (const [k, place] of places.entries()) found[place] = learnt[k];
    }
    return found;
  }

  /**
   * Looks at the template. Computes its digest unless it is known for the current state of the file. Undefined if there
   * is none. Rejects with `TEMPLATE_INVALID`, `TEMPLATE_CHANGED`, or a system error code.
   */
  async look(
    path: string,
    signal: AbortSignal | undefined,
    digestOf: DigestOf = hashUnchanged,
  ): Promise<Template | undefined> {
    return this.#reads.run(new Task(`looking at template ${path}`, signal), async (task) => {
      for (let round = 1; ; round++) {
        try {
          return await looks.run(task, () => this.#lookOnce(path, task.signal, digestOf));
        } catch (error) {
          if (!(error instanceof Replaced)) throw error;
          if (round === ROUNDS) throw error.refusal;
        }
      }
    });
  }

  async #lookOnce(
    path: string,
    signal: AbortSignal | undefined,
    digestOf: DigestOf,
  ): Promise<Template | undefined> {
    this.#refuseClosed();
    const opened = await openTemplate(path);
    if (opened !== undefined) return this.#lookAt(path, opened, signal, digestOf);
    this.#forget(path);
    return undefined;
  }

  async #lookAt(
    path: string,
    opened: OpenedSource,
    signal: AbortSignal | undefined,
    digestOf: DigestOf,
  ): Promise<Template> {
    const { source, filesystem } = opened;
    const { identity } = opened.info;
    const file: LocatedFile = { path, identity, filesystem };
    const task = new Task(`hashing template ${path}`, signal);
    let known: Template | undefined;
    try {
      known = this.#current(file) ?? (await this.#learnt([file]))[0] ?? (await this.#learntSoon(file));
      if (known === undefined) task.checkAborted();
    } catch (error) {
      native().dispose(source);
      throw error;
    }
    if (known !== undefined) {
      this.#keepOpen(path, source);
      return known;
    }
    // Another file under the same path has another digest.
    const { device, inode, sizeBytes, mtimeNs, ctimeNs } = identity;
    const key = `${device} ${inode} ${sizeBytes} ${mtimeNs} ${ctimeNs} ${path}`;
    if (this.#hashing.has(key)) native().dispose(source);
    // It may outlive the look of whoever was aborted.
    return this.#hashing.join(key, task, (shared) =>
      this.#reads.run(shared, (own) => this.#hash(own, file, opened, digestOf)),
    );
  }

  /** Keeps the template open, or closes it. */
  async #hash(task: Task, file: LocatedFile, opened: OpenedSource, digestOf: DigestOf): Promise<Known> {
    const { path, filesystem } = file;
    const { source } = opened;
    try {
      const settled = await waitForDistinctTime(task, path, opened);
      const sha256 = await digestOf(task, path, settled);
      // A digest that survives a power cut must be of data that survives it too.
      await inTurn(task, () => native().flushSource(source));
      const { info } = await native().checkSource(source);
      if (!sameWhileRead(settled.info.identity, info.identity, filesystem))
        throw templateChangedError(path, 'changed while it was read');
      const found = { ...file, identity: info.identity };
      await this.#digests.put(found, sha256);
      const fresh = this.#remember({ ...found, sha256 });
      this.#keepOpen(path, source);
      return fresh;
    } catch (error) {
      // Only while it is open can no other file have its inode number.
      const replaced = hasCode(error, 'TEMPLATE_CHANGED') && (await isReplaced(file));
      native().dispose(source);
      const refusal = asRootfsError(task.what, error);
      throw replaced ? new Replaced(refusal) : refusal;
    }
  }

  /** Whether the file at the path is known to have this digest. Does not read it. */
  async hasDigest(path: string, sha256: string): Promise<boolean> {
    const [template] = await this.known([path], undefined);
    return template?.sha256 === sha256;
  }

  /** The size of the template with this digest, if known. */
  sizeOf(sha256: string): number | undefined {
    return this.#sizes.get(sha256);
  }

  /** Closes a file that is open as a template. Returns the paths that it was opened by. */
  closeFile(identity: Identity): string[] {
    const paths = [...this.#open.keys()].filter((path) => {
      const known = this.#known.get(path);
      return known !== undefined && sameFile(known.identity, identity);
    });
    for (const path of paths) this.#letGo(path);
    return paths;
  }

  close(): void {
    this.#closed = true;
    open.delete(this.#self);
    for (const source of this.#open.values()) native().dispose(source);
    this.#open.clear();
    this.#known.clear();
  }

  #refuseClosed(): void {
    if (this.#closed) throw closedError();
  }

  /** What is known of the path, if it is valid for this state of the file. */
  #current({ path, identity, filesystem }: LocatedFile): Template | undefined {
    const known = this.#known.get(path);
    if (known === undefined || !sameTemplate(known.identity, identity)) return undefined;
    // A file that is not open may be gone along with its disk, and another file may have the same device and inode
    // numbers.
    const canHaveTwin = identity.mount === 0n && (filesystem === '' || hasWholeSeconds(identity));
    if (canHaveTwin && !this.#open.has(path)) return undefined;
    known.identity = identity;
    return known;
  }

  /** What was learned earlier, perhaps by another process. */
  async #learnt(files: readonly LocatedFile[]): Promise<(Template | undefined)[]> {
    if (files.length === 0) return [];
    const digests = await this.#digests.get(files);
    return files.map(({ path, identity, filesystem }, i) => {
      const sha256 = digests[i];
      if (sha256 === undefined) return undefined;
      return this.#remember({ path, identity, filesystem, sha256 });
    });
  }

  /** What another process that has just linked the file is about to save. */
  async #learntSoon(file: LocatedFile): Promise<Template | undefined> {
    for (const waitMs of WAITS_MS) {
      if (!(await this.#digests.linked.mayBeSavedSoon(file))) return undefined;
      await sleep(waitMs);
      const [template] = await this.#learnt([file]);
      if (template !== undefined) return template;
      // What is saved then is of another state.
      const [now] = await native().identities([file.path]);
      if (now === undefined || !identical(now, file.identity)) return undefined;
    }
    return undefined;
  }

  #remember(fresh: Known): Known {
    const { path } = fresh;
    const before = this.#known.get(path);
    this.#known.delete(path);
    if (this.#closed) return fresh;
    this.#known.set(path, fresh);
    dropOldest(this.#known, KNOWN_LIMIT, ({ path: oldest }) => this.#letGo(oldest));
    this.#sizes.delete(fresh.sha256);
    this.#sizes.set(fresh.sha256, fresh.identity.sizeBytes);
    dropOldest(this.#sizes, KNOWN_LIMIT);
    // The descriptor belongs to the file that had the path before.
    if (before !== undefined) this.#letGo(path);
    if (before !== undefined && !sameFile(before.identity, fresh.identity)) void this.#digests.forget(before);
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
    open.add(this.#self);
    dropOldest(this.#open, OPEN_LIMIT, (oldest) => native().dispose(oldest));
  }

  #letGo(path: string): void {
    const source = this.#open.get(path);
    if (source !== undefined) native().dispose(source);
    this.#open.delete(path);
  }
}

/** The template was replaced by a rename, as it should be: look again. */
class Replaced extends Error {
  constructor(readonly refusal: unknown) {
    super();
  }
}
