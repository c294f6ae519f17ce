// Sealed images: one immutable copy of each (template digest, size), in few extents, that clones are reflinked from.
//
//   <clonesDir>/.microvm-rootfs/sealed/<sha256>-<size>/rootfs.ext4   0444, flushed, never changed
//                                                      record.json   what it is, and the state of the file when it was sealed
//
// Built in staging and published with its record by one rename, so none is ever wrong or half there. Reflinking costs by the extent,
// growing costs a process, a template may lie on another file system or be replaced at any moment: all of that is paid for once.

import { readdir } from 'node:fs/promises';
import { sameState } from '../addon/identity.js';
import { native, type OpenedSource } from '../addon/native.js';
import { isWanted } from '../catalog/template-record.js';
import { type Template, templateChangedError, unchanged } from '../catalog/templates.js';
import type { ManagedFolder, OpenFolder } from '../folder/managed-folder.js';
import type { GrowPrograms } from '../image/grow.js';
import { failedWith, isFull, RootfsError } from '../system/errors.js';
import { traced } from '../system/events.js';
import { isMissing } from '../system/is-missing.js';
import { SingleFlight } from '../system/single-flight.js';
import { Task } from '../system/task.js';
import { OpenImages, type SealedImage } from './open-images.js';
import { sealGrown, sealTemplate } from './seal-image.js';
import { isSealed, keyOf, partsOf, readRecord } from './seal-record.js';

// After a seal that found no space.
const FULL_REST_MS = 1000;

export class SealedImages {
  readonly #folder: ManagedFolder;
  readonly #programs: GrowPrograms;
  readonly #path: string;
  readonly #open = new OpenImages();
  readonly #sealing = new SingleFlight<SealedImage>();
  #full: { readonly error: unknown; readonly until: number } | undefined;

  constructor(folder: ManagedFolder, programs: GrowPrograms) {
    this.#folder = folder;
    this.#programs = programs;
    this.#path = `${folder.statePath}/sealed`;
  }

  /** A sealed image that is open already. */
  remembered(sha256: string, sizeBytes: number): SealedImage | undefined {
    return this.#open.get(sha256, sizeBytes);
  }

  /** The sealed image was changed or removed behind our back: the next clone finds out what is true. */
  forget(sha256: string, sizeBytes: number): void {
    this.#open.close(sha256, sizeBytes);
  }

  /** The sealed image of a template whose digest is known, at one size: opened, or made. */
  async ensure(template: Template, sizeBytes: number, signal: AbortSignal | undefined): Promise<SealedImage> {
    const { sha256, path } = template;
    const task = new Task(`sealing ${path} at ${sizeBytes} bytes`, signal);
    return this.#sealing.join(keyOf(sha256, sizeBytes), task, (shared) =>
      this.#folder.use(async (folder) => {
        const there =
          this.#open.get(sha256, sizeBytes) ?? (await this.#openSealed(folder, sha256, sizeBytes));
        if (there !== undefined) return there;
        return traced({ operation: 'seal', path, bytes: sizeBytes }, () =>
          this.#whileSpace(() => this.#make(shared, folder, template, sizeBytes)),
        );
      }),
    );
  }

  /** Seals a template whose digest is not known, and gives the digest: of the bytes in the sealed image. */
  digestBySealing = (task: Task, path: string, opened: OpenedSource): Promise<string> =>
    this.#folder.use((folder) =>
      unchanged(path, opened, () =>
        traced({ operation: 'seal', path, bytes: opened.info.identity.sizeBytes }, () =>
          this.#whileSpace(() => sealTemplate(task, folder, path, opened, undefined)),
        ),
      ),
    );

  /** On a full disk not every clone should copy until it is full once more, only to be made from its template then. */
  async #whileSpace<T>(work: () => Promise<T>): Promise<T> {
    if (this.#full !== undefined && performance.now() < this.#full.until) throw this.#full.error;
    try {
      return await work();
    } catch (error) {
      if (isFull(error)) this.#full = { error, until: performance.now() + FULL_REST_MS };
      throw error;
    }
  }

  async #make(task: Task, folder: OpenFolder, template: Template, sizeBytes: number): Promise<SealedImage> {
    const { path, sha256 } = template;
    if (sizeBytes !== template.identity.sizeBytes) {
      const base = await this.ensure(template, template.identity.sizeBytes, task.signal);
      await sealGrown(task, folder, base, template, sizeBytes, this.#programs);
      return this.#required(folder, sha256, sizeBytes);
    }
    const opened = await native().openSource(path);
    try {
      // Another file may have the path by now: its bytes must not be sealed under this digest.
      if (!sameState(opened.info.identity, template.identity))
        throw templateChangedError(path, 'was replaced before it was sealed');
      await unchanged(path, opened, () => sealTemplate(task, folder, path, opened, sha256));
    } finally {
      native().dispose(opened.source);
    }
    return this.#required(folder, sha256, sizeBytes);
  }

  async #required(folder: OpenFolder, sha256: string, sizeBytes: number): Promise<SealedImage> {
    const image = await this.#openSealed(folder, sha256, sizeBytes);
    if (image !== undefined) return image;
    const path = `${this.#path}/${keyOf(sha256, sizeBytes)}`;
    throw new RootfsError('ESTALE', `sealed image ${path} was removed while it was made: try again`, {
      path,
    });
  }

  /** Opens a published image; one that is not as it was sealed is thrown away. */
  async #openSealed(folder: OpenFolder, sha256: string, sizeBytes: number): Promise<SealedImage | undefined> {
    const key = keyOf(sha256, sizeBytes);
    const path = `${this.#path}/${key}`;
    let opened = await openImage(path);
    // Another process may publish it at any moment, image and record at once: so what was not there is not thrown away, and the record is
    // read after the image was opened.
    if (opened === undefined) {
      if (await isMissing(path)) return undefined;
      opened = await openImage(path);
    }
    const record = await readRecord(path);
    if (record !== undefined && opened !== undefined && isSealed(record, key, opened.info.identity)) {
      const { source, info } = opened;
      const image: SealedImage = { sealed: true, source, identity: info.identity, extents: record.extents };
      this.#open.add(sha256, sizeBytes, image);
      return image;
    }
    if (opened !== undefined) native().dispose(opened.source);
    await this.#discard(folder, key);
    return undefined;
  }

  async #discard(folder: OpenFolder, key: string): Promise<void> {
    await native().discardFolder(folder.handle, 'sealed', key);
    this.#folder.sweepInBackground();
  }

  /** Throws away the images of templates that are no longer there, or not as they were. Resolves to their number. */
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

  close(): void {
    this.#open.closeAll();
  }
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
