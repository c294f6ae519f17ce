// Keeps ready slots in <clonesDir>/.microvm-rootfs/pool/. Handing one out is a rename.
//
// All processes on the folder share them, and they survive a restart. They are not flushed, because that would cost
// more than they save. So a ready slot of another process is checked before it is used, since a power cut may have
// emptied it, or `chown -R` have changed its owner, and a `durable` clone never comes from here. Their names hold the
// template's digest, so that a changed template finds none of them. Snapshots have ready slots here as well.

import { lstat, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { native } from '../addon/native.js';
import { templateChangedError } from '../catalog/template.js';
import { isTemplateKept } from '../catalog/template-record.js';
import type { Templates } from '../catalog/templates.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { namesIn } from '../folder/names-in.js';
import type { OpenFolder } from '../folder/open-folder.js';
import { sameOwnerAndMode } from '../image/owner-and-mode.js';
import type { Background } from '../system/background.js';
import { Backlog } from '../system/backlog.js';
import { closedError, hasCode, RootfsError } from '../system/errors.js';
import type { Failures } from '../system/failures.js';
import { mapInSlices } from '../system/map-in-slices.js';
import { Pause } from '../system/pause.js';
import { POOL_FOLDER } from '../system/state-folder.js';
import { Task } from '../system/task.js';
import {
  digestIn,
  isAsMade,
  isRecord,
  isSameSource,
  type PoolKey,
  prefixOf,
  readPoolRecord,
  readyPrefix,
  recordNameOf,
  recordOf,
  type SourceName,
  writeRecord,
} from './pool-files.js';
import type { PooledKind, PoolRequest } from './pooled-kind.js';

/** The low mark: below this share of the requested count the pool is refilled. */
const LOW_MARK = 0.5;

/** A refill lists the folder, with the ready slots of all stacks, unless that was done a moment ago. */
const LIST_AGAIN_MS = 1000;

const NEVER = Number.NEGATIVE_INFINITY;

/** After a full disk, for instance. */
const RENEW_AGAIN_MS = 1000;

/** By their kind's prefix. The name of a record stands for itself. */
type Names = Map<string, string[]>;

export class Pool {
  readonly #folder: ManagedFolder;
  readonly #background: Background;
  readonly #path: string;
  /** By template path. */
  readonly #kinds = new Map<string, PooledKind[]>();
  /** The records of ready slots that nobody is to take any more. */
  readonly #emptying: Backlog<string>;
  /** When the listing that is under way has ended. */
  #listing: Promise<void> = Promise.resolve();
  #nextListing: Promise<Names> | undefined;
  #isClosed = false;

  constructor(folder: ManagedFolder, background: Background) {
    this.#folder = folder;
    this.#background = background;
    this.#path = `${folder.statePath}/${POOL_FOLDER}`;
    this.#emptying = new Backlog(background, `emptying ${this.#path}`, (records) => this.#empty(records));
    folder.onOpened(async () => {
      for (const kind of [...this.#kinds.values()].flat()) kind.listedAtMs = NEVER;
    });
  }

  /**
   * Keeps `request.count` ready slots of this kind from now on, whatever becomes of the template. With 0, keeps no more
   * and discards those that are there, whichever process made them. Resolves when they are ready. Rejects with
   * `TEMPLATE_CHANGED` if the template changes meanwhile. After that, or an abort, what was asked for before counts.
   */
  async keep(key: PoolKey, request: PoolRequest, signal: AbortSignal | undefined): Promise<void> {
    const present = this.#kindOf(key);
    const { ready, seen } = present ?? { ready: [], seen: new Set<string>() };
    const { path } = key.template;
    const isReplaced = (kind: PooledKind) => kind === present || kind.request.id === request.id;
    const replaced = this.#kindsOf(path).filter(isReplaced);
    const others = this.#kindsOf(path).filter((kind) => !isReplaced(kind));
    this.#setKinds(path, others);
    const prefix = prefixOf(key);
    if (request.count === 0) {
      await this.#folder.use(async ({ handle }) =>
        this.#throwAway(handle, await namesIn(this.#path, (each) => each.startsWith(prefix))),
      );
      return;
    }
    const kind: PooledKind = {
      key,
      prefix,
      ready,
      seen,
      request,
      listedAtMs: NEVER,
      isStale: false,
      isAwaited: true,
      renewedFor: undefined,
      renewAgainAtMs: 0,
      filling: undefined,
    };
    this.#setKinds(path, [...others, kind]);
    kind.filling = this.#fill(kind, signal).finally(() => {
      kind.isAwaited = false;
      kind.filling = undefined;
    });
    try {
      await kind.filling;
      if (kind.isStale) throw templateChangedError(path, 'was replaced');
    } catch (error) {
      if (signal?.aborted || kind.isStale) this.#undo(kind, replaced);
      throw error;
    }
    if (this.#isClosed) throw closedError();
  }

  /** Puts back what a kind replaced, unless it has been replaced itself. */
  #undo(kind: PooledKind, replaced: readonly PooledKind[]): void {
    const { path } = kind.key.template;
    const kinds = this.#kindsOf(path);
    if (!kinds.includes(kind)) return;
    for (const earlier of replaced) earlier.isStale ||= kind.isStale;
    this.#setKinds(path, [...kinds.filter((other) => other !== kind), ...replaced]);
  }

  get isEmpty(): boolean {
    return this.#kinds.size === 0;
  }

  /** The name of a ready slot, to be taken by a rename. A caller that does not take it gives it back. */
  take(key: PoolKey): string | undefined {
    const { path, sha256 } = key.template;
    for (const stale of this.#kindsOf(path)) {
      if (!stale.isStale || stale.filling !== undefined) continue;
      if (stale.renewedFor === sha256 && performance.now() < stale.renewAgainAtMs) continue;
      stale.renewedFor = sha256;
      this.#renew(stale);
    }
    const kind = this.#kindOf(key);
    if (kind === undefined) return undefined;
    // The same bytes in another file: what the record says of it no longer holds.
    if (kind.key.template.identity !== key.template.identity) kind.listedAtMs = NEVER;
    kind.key = key;
    const name = kind.ready.pop();
    if (kind.ready.length < kind.request.count * LOW_MARK) this.#refill(kind);
    return name;
  }

  /** The ready slot that was taken was gone: another process took or discarded it, and perhaps others. */
  missed(key: PoolKey): void {
    const kind = this.#kindOf(key);
    if (kind === undefined) return;
    kind.listedAtMs = NEVER;
    this.#refill(kind);
  }

  giveBack(key: PoolKey, name: string): void {
    this.#kindOf(key)?.ready.push(name);
  }

  /** The template or snapshot changed: its ready slots are discarded, and made again unless it is `gone`. */
  drop(template: SourceName, gone: boolean): void {
    const { path } = template;
    for (const kind of this.#kindsOf(path)) {
      if (kind.isStale || !isSameSource(kind.key.template, template)) continue;
      kind.isStale = true;
      if (kind.isAwaited) continue;
      kind.filling = undefined;
      if (!gone) this.#renew(kind);
    }
    if (this.#folder.opened === undefined) return;
    this.#emptying.add(recordNameOf(template));
  }

  /** Discards all ready slots with these records, and the records. */
  async #empty(records: ReadonlySet<string>): Promise<void> {
    await this.#folder.use(async ({ handle }) =>
      this.#throwAway(handle, await namesIn(this.#path, (each) => records.has(recordOf(each)))),
    );
  }

  /** This is what is at its path: ready slots of what was there before are discarded, and made again of this. */
  dropOthers(source: SourceName): void {
    for (const { key, isStale } of this.#kindsOf(source.path))
      if (!isStale && !isSameSource(key.template, source)) this.drop(key.template, false);
  }

  /**
   * Discards the ready slots of templates that are gone or were replaced, unless by the same bytes. Resolves to their
   * number.
   */
  async collect(templates: Templates, failures: Failures): Promise<number> {
    return this.#folder.use(async ({ handle }) => {
      const names = await namesIn(this.#path);
      const unwanted = new Set<string>();
      await mapInSlices(names, (name) => unwanted.add(recordOf(name)));
      for (const record of unwanted) {
        const path = join(this.#path, record);
        const isKept = await failures.attempt(path, async () => {
          const read = await readPoolRecord(path);
          if (read === undefined) return false;
          if (await isTemplateKept(read)) return true;
          // Those of a snapshot are named by the digest of the template before it.
          return read.snapshot === undefined && templates.hasDigest(read.templatePath, digestIn(record));
        });
        // One that cannot be read may be of a template that is there.
        if (isKept ?? true) unwanted.delete(record);
      }
      let removed = 0;
      const pause = new Pause();
      for (const name of names) {
        if (pause.isDue) await pause.take();
        if (!unwanted.has(recordOf(name))) continue;
        await failures.attempt(join(this.#path, name), async () => {
          await this.#discard(handle, name);
          if (!isRecord(name)) removed++;
        });
      }
      return removed;
    }, 'no-staging');
  }

  /** Stops filling. Ready slots stay for the next process. */
  close(): void {
    this.#isClosed = true;
    this.#kinds.clear();
  }

  /** Discards these, and has the trash emptied. */
  async #throwAway(handle: OpenFolder['handle'], names: readonly string[]): Promise<void> {
    try {
      for (const name of names) await this.#discard(handle, name);
    } finally {
      this.#folder.sweepInBackground();
    }
  }

  async #discard(handle: OpenFolder['handle'], name: string): Promise<void> {
    if (isRecord(name)) await rm(join(this.#path, name), { force: true, recursive: true });
    else await native().discardFolder(handle, 'pool', name);
  }

  #refill(kind: PooledKind): void {
    if (kind.filling !== undefined) return;
    kind.filling = this.#background
      .start(`filling the pool of ${kind.key.template.path}`, () =>
        this.#fill(kind, undefined).catch(unlessSourceChanged),
      )
      .finally(() => {
        kind.filling = undefined;
      });
  }

  /** Ready slots on disk count, whichever process made them. */
  async #fill(kind: PooledKind, signal: AbortSignal | undefined): Promise<void> {
    if (performance.now() - kind.listedAtMs >= LIST_AGAIN_MS)
      await this.#look(kind).catch((error: unknown) => {
        kind.listedAtMs = NEVER;
        throw error;
      });
    while (kind.ready.length < kind.request.count && this.#kindOf(kind.key) === kind) {
      new Task(`filling the pool of ${kind.key.template.path}`, signal).checkAborted();
      const name = await kind.request.make(kind.key, kind.prefix, signal);
      // It was given up meanwhile, and its folder emptied; or the caller wants fewer by now.
      const now = this.#kindOf(kind.key);
      if (now === undefined || (now.ready.length >= now.request.count && !kind.seen.has(name))) {
        await this.#folder.use(({ handle }) => this.#throwAway(handle, [name])).catch(() => {}); // recover() removes it
        return;
      }
      // Another fill may already have found it on disk.
      if (kind.seen.has(name)) continue;
      kind.seen.add(name);
      kind.ready.push(name);
    }
  }

  /** What is in the folder, and whether it is of use. */
  async #look(kind: PooledKind): Promise<void> {
    await this.#folder.use(async (folder) => {
      const { template } = kind.key;
      const record = recordNameOf(template);
      kind.listedAtMs = performance.now();
      const names = await this.#names();
      const there = new Set(names.get(kind.prefix));
      const known = names.has(record)
        ? await readPoolRecord(join(this.#path, record)).catch(() => undefined)
        : undefined;
      if (known === undefined || !(await isTemplateKept(known)))
        await writeRecord(folder, join(this.#path, record), template);
      // Forget those that another process took. One that this process takes meanwhile stays taken.
      const left = kind.ready.filter((name) => there.has(name));
      kind.ready.length = 0;
      for (const name of left) kind.ready.push(name);
      // What this process makes has the same owner, also where the group is the folder's, or a server chooses.
      const ours = await lstat(folder.sessionPath);
      for (const name of there) {
        if (kind.seen.has(name)) continue;
        kind.seen.add(name);
        if (await isAsMade(join(this.#path, name), kind.key, ours)) {
          kind.ready.push(name);
        } else {
          // What is of no use, and cannot be removed either, keeps nobody from filling the pool: recover() reports it.
          await this.#throwAway(folder.handle, [name]).catch(() => {});
        }
      }
      for (const name of kind.seen) if (!there.has(name)) kind.seen.delete(name);
    });
  }

  async #list(): Promise<Names> {
    const names: Names = new Map();
    const add = (name: string): false => {
      const key = isRecord(name) ? name : readyPrefix(name);
      const same = names.get(key);
      if (same === undefined) names.set(key, [name]);
      else same.push(name);
      return false;
    };
    await namesIn(this.#path, add);
    return names;
  }

  /** What is in the folder. Those who ask at once share one listing, which begins after they asked. */
  #names(): Promise<Names> {
    this.#nextListing ??= this.#listing.then(() => {
      const listing = this.#list();
      this.#nextListing = undefined;
      this.#listing = listing.then(ignore, ignore);
      return listing;
    });
    return this.#nextListing;
  }

  /** A renewal that fails, as when the template is replaced once more meanwhile, is tried again by the next clone. */
  #renew(kind: PooledKind): void {
    const filling = this.#background
      .start(`filling the pool of ${kind.key.template.path}`, async () => {
        // The caller may have asked for something else meanwhile.
        const isWanted = () => this.#kindsOf(kind.key.template.path).includes(kind);
        await kind.request.renew(isWanted).catch((error: unknown) => {
          const mayPass = error instanceof RootfsError && error.errno !== undefined;
          kind.renewAgainAtMs = mayPass ? performance.now() + RENEW_AGAIN_MS : Number.POSITIVE_INFINITY;
          throw error;
        });
      })
      .finally(() => {
        if (kind.filling === filling) kind.filling = undefined;
      });
    kind.filling = filling;
  }

  #kindsOf(templatePath: string): readonly PooledKind[] {
    return this.#kinds.get(templatePath) ?? [];
  }

  #setKinds(templatePath: string, kinds: PooledKind[]): void {
    if (kinds.length > 0) this.#kinds.set(templatePath, kinds);
    else this.#kinds.delete(templatePath);
  }

  #kindOf(wanted: PoolKey): PooledKind | undefined {
    const { template, grownTo } = wanted;
    return this.#kindsOf(template.path).find(
      ({ key, isStale }) =>
        !isStale &&
        isSameSource(key.template, template) &&
        key.grownTo === grownTo &&
        sameOwnerAndMode(key, wanted),
    );
  }
}

/** The snapshot was removed, or taken again: the next restore reports that, or refills the pool. */
function unlessSourceChanged(error: unknown): void {
  if (!hasCode(error, 'SOURCE_CHANGED')) throw error;
}

function ignore(): void {}
