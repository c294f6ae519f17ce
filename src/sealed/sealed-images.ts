// Sealed images: for each template digest and size one that never changes, from which clones are reflinked.
//
//   <clonesDir>/.microvm-rootfs/sealed/<sha256>-<size>/rootfs.ext4   0444, flushed, never changed
//                                                      record.json   what it is, and the file's state when sealed
//
// Built in staging and published with its record by one rename, so none is ever wrong or half-written. A template may
// be replaced at any moment, or lie on another file system, and growing it takes programs: a sealed image pays for all
// that once. It is a reflink of the template where that is possible, and packed into few extents once that is earned.

import { channel } from 'node:diagnostics_channel';
import { readdir, stat, utimes } from 'node:fs/promises';
import { native, type OpenedSource } from '../addon/native.js';
import {
  isProven,
  sameTemplate,
  type Template,
  templateChangedError,
  unchanged,
} from '../catalog/template.js';
import { isWanted } from '../catalog/template-record.js';
import type { ManagedFolder, OpenFolder } from '../folder/managed-folder.js';
import { FEW_EXTENTS } from '../image/extents.js';
import type { GrowPrograms } from '../image/grow.js';
import type { Background } from '../system/background.js';
import { failedWith, isFull } from '../system/errors.js';
import { traced } from '../system/events.js';
import { isMissing } from '../system/is-missing.js';
import { SingleFlight } from '../system/single-flight.js';
import { Task } from '../system/task.js';
import { type Budget, type Candidate, overBudget } from './budget.js';
import { OpenImages, type SealedImage } from './open-images.js';
import { type PackOutcome, packImage } from './pack-image.js';
import { clonesThatPay } from './packing.js';
import { sealGrown, sealTemplate } from './seal-image.js';
import { isSealed, keyOf, partsOf, RECORD_FILE, readRecord, type SealRecord } from './seal-record.js';

/** A sealed image, and what this process knows about it. */
export interface SealedImageInfo {
  readonly path: string;
  readonly templatePath: string;
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly grown: boolean;
  readonly packed: boolean;
  /** Number of extents when it was sealed: each costs a clone about 10 µs. Undefined where that is not known. */
  readonly extents: number | undefined;
  /** Bytes on disk that it shared with no other file when it was sealed. */
  readonly ownBytes: number | undefined;
  /** Clones that this process made of it. */
  readonly clones: number;
  /** The clone count at which this process considers packing it. Infinity: never. */
  readonly packAfterClones: number | undefined;
}

/** Published on the channel `microvm-rootfs:packing` for each packing decision about a sealed image. */
export interface PackingEvent {
  readonly path: string;
  readonly sizeBytes: number;
  readonly extents: number | undefined;
  readonly dataBytes: number;
  readonly outcome: PackOutcome;
}

const packingChannel = channel('microvm-rootfs:packing');

// Each is lost to a process that replaces the template at the same moment.
const ROUNDS = 8;

// Used after sealing failed for lack of space.
const FULL_REST_MS = 1000;

export class SealedImages {
  readonly #folder: ManagedFolder;
  readonly #programs: GrowPrograms;
  readonly #path: string;
  readonly #budget: Budget;
  readonly #background: Background;
  readonly #ending = new AbortController();
  #packing = false;
  readonly #open = new OpenImages();
  readonly #sealing = new SingleFlight<SealedImage>();
  #full: { readonly error: unknown; readonly until: number } | undefined;

  constructor(folder: ManagedFolder, programs: GrowPrograms, budget: Budget, background: Background) {
    this.#folder = folder;
    this.#budget = budget;
    this.#background = background;
    this.#programs = programs;
    this.#path = `${folder.statePath}/sealed`;
  }

  /** A sealed image that is already open. */
  remembered(sha256: string, sizeBytes: number): SealedImage | undefined {
    return this.#open.get(sha256, sizeBytes);
  }

  /** Closes a sealed image that another process changed or removed. The next clone looks at it again. */
  forget(sha256: string, sizeBytes: number): void {
    this.#open.close(sha256, sizeBytes);
  }

  /** Opens or makes the sealed image of a template with a known digest, at one size. */
  async ensure(template: Template, sizeBytes: number, signal: AbortSignal | undefined): Promise<SealedImage> {
    const { sha256, path } = template;
    const task = new Task(`sealing ${path} at ${sizeBytes} bytes`, signal);
    return this.#sealing.join(keyOf(sha256, sizeBytes), task, (shared) =>
      this.#folder.use(async (folder) => {
        const open = this.#open.get(sha256, sizeBytes);
        if (open !== undefined) return open;
        const there = (await this.#isUnsealed(sha256, sizeBytes))
          ? undefined
          : await this.#openSealed(folder, sha256, sizeBytes);
        if (there !== undefined) return there;
        // Whoever finds a template replaced removes its images, and the same bytes may have been published again.
        for (let round = 0; round < ROUNDS; round++) {
          const made = await traced({ operation: 'seal', path, bytes: sizeBytes }, () =>
            this.#whileSpace(() => this.#make(shared, folder, template, sizeBytes)),
          );
          if (made !== undefined) return made;
        }
        throw templateChangedError(path, 'keeps being replaced, and its sealed image removed');
      }),
    );
  }

  /** Seals a template whose digest is not known. Returns the digest of the bytes in the sealed image. */
  digestBySealing = (task: Task, path: string, opened: OpenedSource): Promise<string> =>
    this.#folder.use((folder) =>
      unchanged(path, opened, () =>
        traced({ operation: 'seal', path, bytes: opened.info.identity.sizeBytes }, async () => {
          const sealed = await this.#whileSpace(() => sealTemplate(task, folder, path, opened, undefined));
          await this.#openNew(sealed.record);
          return sealed.sha256;
        }),
      ),
    );

  /** On a full disk, avoids that every clone copies until the disk is full again, only to fall back to its template. */
  async #whileSpace<T>(work: () => Promise<T>): Promise<T> {
    if (this.#full !== undefined && performance.now() < this.#full.until) throw this.#full.error;
    try {
      return await work();
    } catch (error) {
      if (isFull(error)) this.#full = { error, until: performance.now() + FULL_REST_MS };
      throw error;
    }
  }

  /** Undefined if the image was removed as soon as it was made. */
  async #make(
    task: Task,
    folder: OpenFolder,
    template: Template,
    sizeBytes: number,
  ): Promise<SealedImage | undefined> {
    const { path, sha256 } = template;
    if (sizeBytes !== template.identity.sizeBytes) {
      const base = await this.ensure(template, template.identity.sizeBytes, task.signal);
      const record = await sealGrown(task, folder, base, template, sizeBytes, this.#programs);
      const grown = (await this.#openNew(record)) ?? (await this.#openSealed(folder, sha256, sizeBytes));
      if (grown === undefined) {
        // Another process may have removed the image that it was made from, which is open here.
        this.forget(sha256, template.identity.sizeBytes);
        return undefined;
      }
      this.#background.start(`keeping the budget of ${this.#path}`, () =>
        this.#folder.use(() => this.#keepBudget(folder, grown.key)),
      );
      return grown;
    }
    const opened = await native().openSource(path);
    try {
      // The path may hold another file by now, and its bytes must not be sealed under this digest.
      if (!sameTemplate(template.identity, opened.info.identity, opened.filesystem))
        throw templateChangedError(path, 'was replaced before it was sealed');
      const known = isProven(template) ? sha256 : undefined;
      const sealed = await unchanged(path, opened, () => sealTemplate(task, folder, path, opened, known));
      if (sealed.sha256 !== sha256) throw templateChangedError(path, 'changed since it was hashed');
      return (await this.#openNew(sealed.record)) ?? (await this.#openSealed(folder, sha256, sizeBytes));
    } finally {
      native().dispose(opened.source);
    }
  }

  /** Opens an image that this process has just published. Undefined if it is another one, or none, by now. */
  async #openNew(record: SealRecord | undefined): Promise<SealedImage | undefined> {
    if (record === undefined) return undefined;
    const key = keyOf(record.sha256, record.sizeBytes);
    const opened = await openImage(`${this.#path}/${key}`);
    if (opened === undefined) return undefined;
    if (!isSealed(record, key, opened.info.identity)) {
      native().dispose(opened.source);
      return undefined;
    }
    const image = sealedImage(key, false, opened, record);
    this.#open.add(record.sha256, record.sizeBytes, image);
    return image;
  }

  /**
   * Whether there is no image, so that none has to be opened. The plain one goes only after the packed one has come, so
   * it is looked for first.
   */
  async #isUnsealed(sha256: string, sizeBytes: number): Promise<boolean> {
    for (const packing of ['plain', 'packed'] as const)
      if (!(await isMissing(`${this.#path}/${keyOf(sha256, sizeBytes, packing)}`))) return false;
    return true;
  }

  /** Returns the packed image if there is one, else the plain one. */
  async #openSealed(folder: OpenFolder, sha256: string, sizeBytes: number): Promise<SealedImage | undefined> {
    // The plain image is removed while a packed one is published, so look for both again.
    for (const packing of ['packed', 'plain', 'packed'] as const) {
      const image = await this.#openOne(folder, keyOf(sha256, sizeBytes, packing), packing === 'packed');
      if (image === undefined) continue;
      this.#open.add(sha256, sizeBytes, image);
      return image;
    }
    return undefined;
  }

  /** Opens a published image. Removes it if it changed since it was sealed. */
  async #openOne(folder: OpenFolder, key: string, packed: boolean): Promise<SealedImage | undefined> {
    const path = `${this.#path}/${key}`;
    let opened = await openImage(path);
    // Another process may publish image and record together at any moment. So a missing image is not removed, and the
    // record is read after the image is opened.
    if (opened === undefined) {
      if (await isMissing(path)) return undefined;
      opened = await openImage(path);
    }
    const record = await readRecord(path);
    if (record !== undefined && opened !== undefined && isSealed(record, key, opened.info.identity)) {
      await this.#touch(path);
      return sealedImage(key, packed, opened, record);
    }
    if (opened !== undefined) native().dispose(opened.source);
    await this.#discard(folder, key);
    return undefined;
  }

  /** Records a use: the budget takes the record's modification time as the last use. */
  async #touch(path: string): Promise<void> {
    const now = new Date();
    await utimes(`${path}/${RECORD_FILE}`, now, now).catch(() => {}); // not ours to change: then it counts as old
  }

  /** Called after each clone. From time to time, checks whether packing the image pays off. */
  cloned(image: SealedImage): void {
    image.clones++;
    if (image.clones < image.packAfter || this.#packing) return;
    image.packAfter = image.clones * 2;
    this.#packing = true;
    this.#background
      .start(`packing ${this.#path}/${image.key}`, async () => {
        const task = new Task(`packing ${this.#path}/${image.key}`, this.#ending.signal);
        const outcome = await this.#pack(task, image, true);
        if (outcome === 'no-gain') image.packAfter = Number.POSITIVE_INFINITY;
      })
      .finally(() => {
        this.#packing = false;
      });
  }

  /** Packs the sealed image of a template at one size now, whatever the cost. Resolves to the outcome. */
  async pack(template: Template, sizeBytes: number, signal: AbortSignal | undefined): Promise<PackOutcome> {
    const image = await this.ensure(template, sizeBytes, signal);
    return this.#pack(new Task(`packing ${this.#path}/${image.key}`, signal), image, false);
  }

  async #pack(task: Task, { key }: SealedImage, idle: boolean): Promise<PackOutcome> {
    const parts = partsOf(key);
    if (parts === undefined || parts.packed) return 'packed';
    const path = `${this.#path}/${key}`;
    return this.#folder.use(async (folder) => {
      const opened = await openImage(path);
      const record = await readRecord(path);
      // Another process may have packed it meanwhile.
      if (opened === undefined || record === undefined) {
        if (opened !== undefined) native().dispose(opened.source);
        this.#open.close(parts.sha256, parts.sizeBytes);
        return 'changed';
      }
      try {
        const image = sealedImage(key, false, opened, record);
        const dataBytes = opened.info.blocks * 512;
        const few = (image.extents ?? 0) <= FEW_EXTENTS;
        const outcome = few
          ? 'few-extents'
          : await traced({ operation: 'pack', path, bytes: dataBytes }, () =>
              packImage(task, folder, image, record, dataBytes, idle),
            );
        this.#tell(image, dataBytes, outcome);
        if (outcome !== 'packed') return outcome;
        // From now on, clones use the packed image. No clone waited for it.
        await this.#openSealed(folder, parts.sha256, parts.sizeBytes);
        await this.#discard(folder, key);
        await this.#keepBudget(folder, keyOf(parts.sha256, parts.sizeBytes, 'packed'));
        return outcome;
      } finally {
        native().dispose(opened.source);
      }
    });
  }

  #tell({ key, extents, identity }: SealedImage, dataBytes: number, outcome: PackOutcome): void {
    if (!packingChannel.hasSubscribers) return;
    const { sizeBytes } = identity;
    const event: PackingEvent = { path: `${this.#path}/${key}`, sizeBytes, extents, dataBytes, outcome };
    packingChannel.publish(event);
  }

  /** Called after an image was made that counts towards the budget. */
  async #keepBudget(folder: OpenFolder, keep: string): Promise<void> {
    const candidates: Candidate[] = [];
    for (const key of await readdir(this.#path)) {
      const parts = partsOf(key);
      const path = `${this.#path}/${key}`;
      const record = parts === undefined ? undefined : await readRecord(path);
      if (parts === undefined || record === undefined) continue;
      if (!parts.packed && record.template.sizeBytes === parts.sizeBytes) continue;
      await this.#touchIfUsed(parts.sha256, parts.sizeBytes, path);
      const written = await stat(`${path}/${RECORD_FILE}`).catch(() => undefined);
      candidates.push({ key, ownBytes: record.ownBytes ?? 0, lastUsedMs: written?.mtimeMs ?? 0 });
    }
    for (const key of overBudget(candidates, this.#budget, keep)) {
      const parts = partsOf(key);
      if (parts !== undefined) this.#open.close(parts.sha256, parts.sizeBytes);
      await this.#discard(folder, key);
    }
  }

  async #touchIfUsed(sha256: string, sizeBytes: number, path: string): Promise<void> {
    const image = this.#open.get(sha256, sizeBytes);
    if (image === undefined || image.clones === image.clonesTouched) return;
    image.clonesTouched = image.clones;
    await this.#touch(path);
  }

  /** Lists all sealed images, in no order: what they hold, and what packing them would take. */
  async list(): Promise<SealedImageInfo[]> {
    if (await isMissing(this.#path)) return [];
    const images: SealedImageInfo[] = [];
    for (const key of await readdir(this.#path)) {
      const parts = partsOf(key);
      const record = parts === undefined ? undefined : await readRecord(`${this.#path}/${key}`);
      if (parts === undefined || record === undefined) continue;
      const open = this.#open.get(parts.sha256, parts.sizeBytes);
      images.push({
        path: `${this.#path}/${key}/rootfs.ext4`,
        templatePath: record.templatePath,
        sha256: parts.sha256,
        sizeBytes: parts.sizeBytes,
        grown: record.template.sizeBytes !== parts.sizeBytes,
        packed: parts.packed,
        extents: record.extents,
        ownBytes: record.ownBytes,
        clones: open?.clones ?? 0,
        packAfterClones: open?.packAfter,
      });
    }
    return images;
  }

  async #discard(folder: OpenFolder, key: string): Promise<void> {
    await native().discardFolder(folder.handle, 'sealed', key);
    this.#folder.sweepInBackground();
  }

  /** Removes the images of templates that are gone or have changed. Resolves to their number. */
  async collect(): Promise<number> {
    return this.#folder.use(async (folder) => {
      let removed = 0;
      for (const key of await readdir(this.#path)) {
        const parts = partsOf(key);
        if (parts === undefined) continue;
        const record = await readRecord(`${this.#path}/${key}`);
        if (record !== undefined && (await isWanted(record))) continue;
        await this.#discard(folder, key);
        this.#open.close(parts.sha256, parts.sizeBytes);
        removed++;
      }
      return removed;
    });
  }

  /** Stops any packing under way at once. */
  stop(): void {
    this.#ending.abort();
  }

  close(): void {
    this.stop();
    this.#open.closeAll();
  }
}

function sealedImage(
  key: string,
  packed: boolean,
  { source, info, filesystem }: OpenedSource,
  { extents }: SealRecord,
): SealedImage {
  const packAfter = packed ? Number.POSITIVE_INFINITY : clonesThatPay(extents, info.blocks * 512, filesystem);
  const { identity } = info;
  return { sealed: true, key, source, identity, extents, packed, clones: 0, clonesTouched: 0, packAfter };
}

async function openImage(folder: string): Promise<OpenedSource | undefined> {
  try {
    return await native().openSource(`${folder}/rootfs.ext4`);
  } catch (error) {
    if (failedWith(error, 'ENOENT') || failedWith(error, 'ENOTDIR') || failedWith(error, 'EINVAL'))
      return undefined;
    throw error;
  }
}
