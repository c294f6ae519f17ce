// The folder of sealed images: which there are, opened and looked at, and which of them go.
//
//   <clonesDir>/.microvm-rootfs/sealed/<sha256>-<size>/rootfs.ext4   0444, flushed, never changed
//                                                      record.json   what it is, and the file's state when sealed
//
// Image and record are published together by one rename, so none is ever wrong or half-written.

import { stat, utimes } from 'node:fs/promises';
import { native, type OpenedSource } from '../addon/native.js';
import { isTemplateKept } from '../catalog/template-record.js';
import type { Templates } from '../catalog/templates.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { namesIn } from '../folder/names-in.js';
import type { OpenFolder } from '../folder/open-folder.js';
import { CLONE_ROOTFS_FILE } from '../slot/stamps.js';
import { asRootfsError, failedWith } from '../system/errors.js';
import { Failures } from '../system/failures.js';
import { isMissing } from '../system/is-missing.js';
import { SEALED_FOLDER } from '../system/state-folder.js';
import { Task } from '../system/task.js';
import { type Budget, type Candidate, overBudget } from './budget.js';
import { OpenImages, type SealedImage } from './open-images.js';
import { clonesThatPay } from './packing.js';
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

export class SealedFolder {
  readonly path: string;
  /** Those of its images that this process has open. */
  readonly open = new OpenImages();
  readonly #folder: ManagedFolder;
  readonly #budget: Budget;
  /** Images at their template's own size, which never changes under such a name: their records need no second look. */
  readonly #uncounted = new Set<string>();

  constructor(folder: ManagedFolder, budget: Budget) {
    this.path = `${folder.statePath}/${SEALED_FOLDER}`;
    this.#folder = folder;
    this.#budget = budget;
    // The path may name another folder now, perhaps on another disk, where no clone can be a reflink of what is open.
    folder.onOpened(async () => this.open.closeAll());
  }

  /** Opens an image that this process has just published. Undefined if it was replaced or removed since. */
  async openNew(record: SealRecord | undefined): Promise<SealedImage | undefined> {
    if (record === undefined) return undefined;
    const key = keyOf(record.sha256, record.sizeBytes);
    const opened = await openSealedImage(`${this.path}/${key}`);
    if (opened === undefined) return undefined;
    if (!isSealed(record, key, opened.info.identity)) {
      native().dispose(opened.source);
      return undefined;
    }
    const image = sealedImage(key, false, opened, record);
    this.open.add(record.sha256, record.sizeBytes, image);
    return image;
  }

  /**
   * Whether there is no image, without opening one. The plain image is removed only when the packed one is there, so
   * this looks for the plain one first.
   */
  async isUnsealed(sha256: string, sizeBytes: number): Promise<boolean> {
    for (const packing of ['plain', 'packed'] as const)
      if (!(await isMissing(`${this.path}/${keyOf(sha256, sizeBytes, packing)}`))) return false;
    return true;
  }

  /** Returns the packed image if there is one, else the plain one. */
  async openSealed(folder: OpenFolder, sha256: string, sizeBytes: number): Promise<SealedImage | undefined> {
    const image = await this.find(folder, sha256, sizeBytes);
    if (image !== undefined) this.open.add(sha256, sizeBytes, image);
    return image;
  }

  /** Opens the same image, which is then the caller's to keep or to close: nobody else knows of it. */
  async find(folder: OpenFolder, sha256: string, sizeBytes: number): Promise<SealedImage | undefined> {
    // The plain image is removed while a packed one is published, so look for both again.
    for (const packing of ['packed', 'plain', 'packed'] as const) {
      const image = await this.#openOne(folder, keyOf(sha256, sizeBytes, packing), packing === 'packed');
      if (image !== undefined) return image;
    }
    return undefined;
  }

  /** Opens a published image. Removes it if it changed since it was sealed. */
  async #openOne(folder: OpenFolder, key: string, packed: boolean): Promise<SealedImage | undefined> {
    const path = `${this.path}/${key}`;
    let opened = await openSealedImage(path);
    // Another process may publish image and record together at any moment. So a missing image is not removed, and the
    // record is read after the image is opened.
    if (opened === undefined) {
      if (await isMissing(path)) return undefined;
      opened = await openSealedImage(path);
    }
    const record = await readRecord(path);
    if (record !== undefined && opened !== undefined && isSealed(record, key, opened.info.identity)) {
      await this.#touch(path);
      return sealedImage(key, packed, opened, record);
    }
    if (opened !== undefined) native().dispose(opened.source);
    await this.discard(folder, key);
    return undefined;
  }

  /** Records a use: the budget takes the record's modification time as the last use. */
  async #touch(path: string): Promise<void> {
    const now = new Date();
    await utimes(`${path}/${RECORD_FILE}`, now, now).catch(() => {}); // not ours to change: then it counts as old
  }

  /** Called after images were made that count towards the budget. The last one of them stays. */
  async keepBudget(folder: OpenFolder, keep: string): Promise<void> {
    const candidates: Candidate[] = [];
    const keys = new Set(await namesIn(this.path));
    for (const key of this.#uncounted) if (!keys.has(key)) this.#uncounted.delete(key);
    for (const key of keys) {
      if (this.#uncounted.has(key)) continue;
      const parts = partsOf(key);
      const path = `${this.path}/${key}`;
      // One that cannot be read counts for nothing, and keeps the others within the budget.
      const record = parts && (await readRecord(path).catch(() => undefined));
      if (parts === undefined || record === undefined) continue;
      if (!parts.packed && record.template.sizeBytes === parts.sizeBytes) {
        this.#uncounted.add(key);
        continue;
      }
      await this.#touchIfUsed(this.open.known(parts.sha256, parts.sizeBytes, key), path);
      const written = await stat(`${path}/${RECORD_FILE}`).catch(() => undefined);
      candidates.push({ key, ownBytes: record.ownBytes ?? 0, lastUsedMs: written?.mtimeMs ?? 0 });
    }
    for (const key of overBudget(candidates, this.#budget, keep)) {
      const parts = partsOf(key);
      if (parts !== undefined) this.open.close(parts.sha256, parts.sizeBytes);
      await this.discard(folder, key);
    }
  }

  async #touchIfUsed(image: SealedImage | undefined, path: string): Promise<void> {
    if (image === undefined || image.clones === image.clonesTouched) return;
    image.clonesTouched = image.clones;
    await this.#touch(path);
  }

  /** Lists all sealed images, in no order: what they hold, and what packing them would take. */
  async list(): Promise<SealedImageInfo[]> {
    const images: SealedImageInfo[] = [];
    const task = new Task(`listing sealed images in ${this.path}`, undefined);
    const failures = new Failures(task);
    const keys = await namesIn(this.path).catch((error) => {
      throw asRootfsError(task.what, error);
    });
    for (const key of keys) {
      const parts = partsOf(key);
      const path = `${this.path}/${key}`;
      const record = parts && (await failures.attempt(path, () => readRecord(path)));
      if (parts === undefined || record === undefined) continue;
      const known = this.open.known(parts.sha256, parts.sizeBytes, key);
      images.push({
        path: `${this.path}/${key}/${CLONE_ROOTFS_FILE}`,
        templatePath: record.templatePath,
        sha256: parts.sha256,
        sizeBytes: parts.sizeBytes,
        grown: record.template.sizeBytes !== parts.sizeBytes,
        packed: parts.packed,
        extents: record.extents,
        ownBytes: record.ownBytes,
        clones: known?.clones ?? 0,
        packAfterClones: known?.packAfter,
      });
    }
    failures.throwIfAny(images);
    return images;
  }

  async discard(folder: OpenFolder, key: string): Promise<void> {
    await native().discardFolder(folder.handle, 'sealed', key);
    this.#folder.sweepInBackground();
  }

  /**
   * Removes the images of templates that are gone or have changed. The same bytes may have been published again.
   * Resolves to their number. With `digests`, looks at the images of these alone.
   */
  async collect(templates: Templates, failures: Failures, digests?: ReadonlySet<string>): Promise<number> {
    return this.#folder.use(async (folder) => {
      let removed = 0;
      const isMeant = (key: string) => digests?.has(partsOf(key)?.sha256 ?? '') ?? true;
      for (const key of await namesIn(this.path, isMeant)) {
        const parts = partsOf(key);
        if (parts === undefined) continue;
        const path = `${this.path}/${key}`;
        await failures.attempt(path, async () => {
          const record = await readRecord(path);
          if (record !== undefined && (await isTemplateKept(record))) return;
          if (record !== undefined && (await templates.hasDigest(record.templatePath, parts.sha256))) return;
          await this.discard(folder, key);
          this.open.close(parts.sha256, parts.sizeBytes);
          removed++;
        });
      }
      return removed;
    });
  }
}

/** What is known of an image that was opened. */
export function sealedImage(
  key: string,
  packed: boolean,
  { source, info, filesystem }: OpenedSource,
  { extents }: SealRecord,
): SealedImage {
  const packAfter = packed ? Number.POSITIVE_INFINITY : clonesThatPay(extents, info.blocks * 512, filesystem);
  const { identity } = info;
  const counts = { clones: 0, clonesTouched: 0, packAfter, lastUse: 0 };
  return { sealed: true, key, source, identity, extents, packed, ...counts };
}

/** Undefined if there is none. */
export async function openSealedImage(folder: string): Promise<OpenedSource | undefined> {
  try {
    return await native().openSource(`${folder}/${CLONE_ROOTFS_FILE}`);
  } catch (error) {
    if (failedWith(error, 'ENOENT', 'ENOTDIR', 'EINVAL')) return undefined;
    throw error;
  }
}
