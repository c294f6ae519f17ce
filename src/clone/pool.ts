// Keeps ready slots in <clonesDir>/.microvm-rootfs/pool/. Handing one out is a rename.
//
//   pool/<sha256>-<size>-…-<template tag>-<strategy>-<session>-<number>/   a slot that is no VM's yet
//   pool/<sha256>-<template tag>.json                                      the template of such slots, for recover()
//
// All processes on the folder share them, and they survive a restart. They are not flushed, because that would cost
// more than they save. So a ready slot of another process is checked before it is used, since a power cut may have
// emptied it, and a `durable` clone never comes from here. Their names hold the template's digest, so that a changed
// template finds none of them.

import { lstat, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { native } from '../addon/native.js';
import type { Template } from '../catalog/template.js';
import { isFileState, isWanted, recordTemplate, type TemplateRecord } from '../catalog/template-record.js';
import type { ManagedFolder, OpenFolder } from '../folder/managed-folder.js';
import { readOwnFile, replaceOwnFile } from '../folder/state-files.js';
import { type OwnerAndMode, sameOwnerAndMode } from '../image/owner-and-mode.js';
import {
  CLONE_ROOTFS_FILE,
  CLONE_SIZE_STAMP_FILE,
  CLONE_STAMP_FILE,
  parseSizeStamp,
  parseStamp,
} from '../slot/stamps.js';
import type { Background } from '../system/background.js';
import { closedError, RootfsError } from '../system/errors.js';
import type { Failures } from '../system/failures.js';
import type { Strategy } from '../system/strategy.js';
import { Task } from '../system/task.js';

/** What a ready slot is. Only a request for exactly this can take it. */
export interface PoolKey extends OwnerAndMode {
  readonly template: Template;
  /** Undefined if it has the template's size. */
  readonly grownTo: number | undefined;
}

/** Makes one ready slot of this kind, and returns the name that {@link readyName} gave it. */
export type MakeReady = (key: PoolKey, prefix: string) => Promise<string>;

/** What a caller asked for. It outlives the template that the ready slots are of. */
export interface Wish {
  /** The same for the same size, owner and mode, as they were asked for. */
  readonly id: string;
  readonly count: number;
  readonly make: MakeReady;
  /** Asks for the same again, of the template as it is now, unless nobody wants it any more by then. */
  readonly renew: (isWanted: () => boolean) => Promise<void>;
}

/** The low mark: below this share of the requested count the pool is refilled. */
const LOW_MARK = 0.5;

/** After a full disk, for instance. */
const RENEW_AGAIN_MS = 1000;

const RECORD_BYTES_LIMIT = 64 * 1024;
const STAMP_BYTES_LIMIT = 128;

interface Line {
  /** Its template as it was last seen: the same bytes may have been put in its place. */
  key: PoolKey;
  readonly prefix: string;
  readonly ready: string[];
  /** Names on disk that this process knows, including those it has taken. */
  readonly seen: Set<string>;
  readonly wish: Wish;
  /** Its template has changed, or is gone: nobody takes from it. The next clone of that path renews it. */
  isStale: boolean;
  /** The digest of the template for which the last clone did that: what failed for it would fail for each clone. */
  renewedFor: string | undefined;
  /** When it can be tried again for the same template. */
  renewAgainAtMs: number;
  /** Also while it is renewed. */
  filling: Promise<void> | undefined;
}

export class Pool {
  readonly #folder: ManagedFolder;
  readonly #background: Background;
  readonly #path: string;
  /** By template path. */
  readonly #lines = new Map<string, Line[]>();
  #isClosed = false;

  constructor(folder: ManagedFolder, background: Background) {
    this.#folder = folder;
    this.#background = background;
    this.#path = `${folder.statePath}/pool`;
  }

  /**
   * Keeps `wish.count` ready slots of this kind from now on, whatever becomes of the template. With 0, keeps no more
   * and discards those that are there, whichever process made them. Resolves when they are ready.
   */
  async keep(key: PoolKey, wish: Wish, signal: AbortSignal | undefined): Promise<void> {
    const before = this.#lineOf(key);
    const { ready, seen } = before ?? { ready: [], seen: new Set<string>() };
    const { path } = key.template;
    const others = this.#linesOf(path).filter((line) => line !== before && line.wish.id !== wish.id);
    this.#setLines(path, others);
    const prefix = prefixOf(key);
    if (wish.count === 0) {
      await this.#folder.use(async ({ handle }) => {
        for (const name of await readdir(this.#path))
          if (name.startsWith(prefix)) await this.#discard(handle, name);
        this.#folder.sweepInBackground();
      });
      return;
    }
    const line: Line = {
      key,
      prefix,
      ready,
      seen,
      wish,
      isStale: false,
      renewedFor: undefined,
      renewAgainAtMs: 0,
      filling: undefined,
    };
    this.#setLines(path, [...others, line]);
    line.filling = this.#fill(line, signal).finally(() => {
      line.filling = undefined;
    });
    try {
      await line.filling;
    } catch (error) {
      // Who gives a wish up gets what was wished before.
      if (signal?.aborted && this.#lineOf(key) === line)
        this.#setLines(path, [...others, ...(before === undefined ? [] : [before])]);
      throw error;
    }
    if (this.#isClosed) throw closedError();
  }

  get isEmpty(): boolean {
    return this.#lines.size === 0;
  }

  /** The name of a ready slot, to be taken by a rename. A caller that does not take it gives it back. */
  take(key: PoolKey): string | undefined {
    const { path, sha256 } = key.template;
    for (const stale of this.#linesOf(path)) {
      if (!stale.isStale || stale.filling !== undefined) continue;
      if (stale.renewedFor === sha256 && performance.now() < stale.renewAgainAtMs) continue;
      stale.renewedFor = sha256;
      this.#renew(stale);
    }
    const line = this.#lineOf(key);
    if (line === undefined) return undefined;
    line.key = key;
    const name = line.ready.pop();
    if (line.ready.length < line.wish.count * LOW_MARK && line.filling === undefined) {
      const what = `filling the pool of ${path}`;
      line.filling = this.#background
        .start(what, () => this.#fill(line, undefined))
        .finally(() => {
          line.filling = undefined;
        });
    }
    return name;
  }

  giveBack(key: PoolKey, name: string): void {
    this.#lineOf(key)?.ready.push(name);
  }

  /** The template changed: its ready slots are discarded, and made again unless the template is `gone`. */
  drop({ path, sha256 }: Template, gone: boolean): void {
    for (const line of this.#linesOf(path)) {
      if (line.isStale || line.key.template.sha256 !== sha256) continue;
      line.isStale = true;
      line.filling = undefined;
      if (!gone) this.#renew(line);
    }
    if (this.#folder.opened === undefined) return;
    this.#background.start(`emptying the pool of ${path}`, () =>
      this.#folder.use(async ({ handle }) => {
        const mark = `-${tagOf(path)}`;
        for (const name of await readdir(this.#path)) {
          if (name.startsWith(sha256) && name.includes(mark)) await this.#discard(handle, name);
        }
        this.#folder.sweepInBackground();
      }),
    );
  }

  /** Discards the ready slots of templates that are gone or were replaced. Resolves to their number. */
  async collect(failures: Failures): Promise<number> {
    return this.#folder.use(async ({ handle }) => {
      const names = await readdir(this.#path);
      const unwanted = new Set(names.map((name) => (isRecord(name) ? name : recordOf(name))));
      for (const name of names.filter(isRecord)) {
        const path = join(this.#path, name);
        const isKept = await failures.attempt(path, async () => {
          const record = await readPoolRecord(path);
          return record !== undefined && isWanted(record);
        });
        // One that cannot be read may be of a template that is there.
        if (isKept ?? true) unwanted.delete(name);
      }
      let removed = 0;
      for (const name of names) {
        if (!unwanted.has(isRecord(name) ? name : recordOf(name))) continue;
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
    this.#lines.clear();
  }

  async #discard(handle: OpenFolder['handle'], name: string): Promise<void> {
    if (isRecord(name)) await rm(join(this.#path, name), { force: true, recursive: true });
    else await native().discardFolder(handle, 'pool', name);
  }

  /** Ready slots on disk count, whichever process made them. */
  async #fill(line: Line, signal: AbortSignal | undefined): Promise<void> {
    await this.#folder.use(async (folder) => {
      const there = new Set(await readdir(this.#path));
      const { template } = line.key;
      const record = recordName(template.sha256, tagOf(template.path));
      const known = there.has(record)
        ? await readPoolRecord(join(this.#path, record)).catch(() => undefined)
        : undefined;
      if (known === undefined || !(await isWanted(known)))
        await writeRecord(folder, join(this.#path, record), template);
      // Forget those that another process took. One that this process takes meanwhile stays taken.
      const left = line.ready.filter((name) => there.has(name));
      line.ready.splice(0, line.ready.length, ...left);
      for (const name of there) {
        if (!name.startsWith(line.prefix) || line.seen.has(name)) continue;
        line.seen.add(name);
        if (await isWhole(join(this.#path, name), line.key)) {
          line.ready.push(name);
        } else {
          // What is of no use, and cannot be removed either, keeps nobody from filling the pool: recover() tells of it.
          await this.#discard(folder.handle, name).catch(() => {});
          this.#folder.sweepInBackground();
        }
      }
      for (const name of line.seen) if (!there.has(name)) line.seen.delete(name);
    });
    while (line.ready.length < line.wish.count && this.#lineOf(line.key) === line) {
      new Task(`filling the pool of ${line.key.template.path}`, signal).checkAborted();
      const name = await line.wish.make(line.key, line.prefix);
      // It was given up meanwhile, and its folder emptied; or the caller wants fewer by now.
      const now = this.#lineOf(line.key);
      if (now === undefined || (now.ready.length >= now.wish.count && !line.seen.has(name))) {
        await this.#folder.use(({ handle }) => this.#discard(handle, name)).catch(() => {}); // recover() removes it
        return;
      }
      // Another fill may already have found it on disk.
      if (line.seen.has(name)) continue;
      line.seen.add(name);
      line.ready.push(name);
    }
  }

  /** A renewal that fails, as when the template is replaced once more meanwhile, is tried again by the next clone. */
  #renew(line: Line): void {
    const filling = this.#background
      .start(`filling the pool of ${line.key.template.path}`, async () => {
        // The caller may have asked for something else meanwhile.
        const isWanted = () => this.#linesOf(line.key.template.path).includes(line);
        await line.wish.renew(isWanted).catch((error: unknown) => {
          const mayPass = error instanceof RootfsError && error.errno !== undefined;
          line.renewAgainAtMs = mayPass ? performance.now() + RENEW_AGAIN_MS : Number.POSITIVE_INFINITY;
          throw error;
        });
      })
      .finally(() => {
        if (line.filling === filling) line.filling = undefined;
      });
    line.filling = filling;
  }

  #linesOf(templatePath: string): readonly Line[] {
    return this.#lines.get(templatePath) ?? [];
  }

  #setLines(templatePath: string, lines: Line[]): void {
    if (lines.length > 0) this.#lines.set(templatePath, lines);
    else this.#lines.delete(templatePath);
  }

  #lineOf(wanted: PoolKey): Line | undefined {
    const { template, grownTo } = wanted;
    return this.#linesOf(template.path).find(
      ({ key, isStale }) =>
        !isStale &&
        key.template.sha256 === template.sha256 &&
        key.grownTo === grownTo &&
        sameOwnerAndMode(key, wanted),
    );
  }
}

/** At most 255 bytes, however long the template's path is. */
function prefixOf({ template, grownTo, owner, mode }: PoolKey): string {
  const parts = [template.sha256, grownTo ?? template.identity.sizeBytes];
  if (owner !== undefined) parts.push(`o${owner.uid}.${owner.gid}`);
  if (mode !== undefined) parts.push(`m${mode.toString(8)}`);
  return `${parts.join('-')}-${tagOf(template.path)}-`;
}

function tagOf(templatePath: string): string {
  return `t${native().sha256(templatePath).slice(0, 16)}`;
}

/** `unique` differs from that of any other ready slot of any process. */
export function readyName(prefix: string, strategy: Strategy, unique: string): string {
  return `${prefix}${strategy}-${unique}`;
}

/** How a ready slot was made. */
export function readyStrategy(name: string): Strategy {
  return name.includes('-reflink-') ? 'reflink' : 'copy';
}

function isRecord(name: string): boolean {
  return name.endsWith('.json');
}

/** The name of the record without which a ready slot is discarded. */
export function recordOf(name: string): string {
  const [, sha256 = '', tag = ''] = /^([0-9a-f]{64})-.*-(t[0-9a-f]{16})-/.exec(name) ?? [];
  return recordName(sha256, tag);
}

function recordName(sha256: string, tag: string): string {
  return `${sha256}-${tag}.json`;
}

async function writeRecord(folder: OpenFolder, file: string, { path, identity }: Template): Promise<void> {
  const record = await recordTemplate(path, identity);
  await replaceOwnFile(file, `${JSON.stringify(record)}\n`, folder.sessionPath);
}

export async function readPoolRecord(path: string): Promise<TemplateRecord | undefined> {
  const text = await readOwnFile(path, RECORD_BYTES_LIMIT);
  try {
    const record = JSON.parse(text ?? '') as TemplateRecord;
    return typeof record.templatePath === 'string' && isFileState(record.template) ? record : undefined;
  } catch {
    return undefined; // garbage: what it is of is made anew
  }
}

async function isWhole(path: string, { template, grownTo }: PoolKey): Promise<boolean> {
  try {
    const [stamp, sizeStamp, image] = await Promise.all([
      readOwnFile(join(path, CLONE_STAMP_FILE), STAMP_BYTES_LIMIT),
      readOwnFile(join(path, CLONE_SIZE_STAMP_FILE), STAMP_BYTES_LIMIT),
      lstat(join(path, CLONE_ROOTFS_FILE)),
    ]);
    const sizeBytes = grownTo ?? template.identity.sizeBytes;
    return (
      parseStamp(stamp) === template.sha256 &&
      parseSizeStamp(sizeStamp) === grownTo &&
      image.isFile() &&
      image.size === sizeBytes
    );
  } catch {
    return false; // taken by another process meanwhile, or not whole: of no use either way
  }
}
