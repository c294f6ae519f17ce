// Sealed images: for each template digest and size one that never changes, from which clones are reflinked.
//
// Built in staging and published with its record by one rename. A template may be replaced at any moment, or lie on
// another file system, and growing it takes programs: a sealed image pays for all that once. It is a reflink of the
// template where that is possible, and packed into few extents once that is earned.

import { native, type OpenedSource } from '../addon/native.js';
import { sameTemplate, type Template, templateChangedError, unchanged } from '../catalog/template.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import type { OpenFolder } from '../folder/open-folder.js';
import type { GrowPrograms } from '../image/grow.js';
import type { Background } from '../system/background.js';
import { Backlog } from '../system/backlog.js';
import { isFull } from '../system/errors.js';
import { traced } from '../system/events.js';
import { SingleFlight } from '../system/single-flight.js';
import { Task } from '../system/task.js';
import type { Budget } from './budget.js';
import type { SealedImage } from './open-images.js';
import type { PackOutcome } from './pack-image.js';
import { Packer } from './packer.js';
import { sealGrown, sealTemplate } from './seal-image.js';
import { keyOf } from './seal-record.js';
import { SealedFolder } from './sealed-folder.js';

// Each is lost to a process that replaces the template at the same moment.
const ROUNDS = 8;

// Used after sealing failed for lack of space.
const FULL_REST_MS = 1000;

export class SealedImages {
  readonly images: SealedFolder;
  readonly packer: Packer;
  readonly #folder: ManagedFolder;
  readonly #programs: GrowPrograms;
  /** Grown images that were just made: they count towards the budget. */
  readonly #grown: Backlog<string>;
  readonly #sealing = new SingleFlight<SealedImage>();
  #full: { readonly error: unknown; readonly until: number } | undefined;

  constructor(folder: ManagedFolder, programs: GrowPrograms, budget: Budget, background: Background) {
    this.#folder = folder;
    this.#programs = programs;
    this.images = new SealedFolder(folder, budget);
    this.#grown = new Backlog(background, `keeping the budget of ${this.images.path}`, (keys) =>
      folder.use((open) => this.images.keepBudget(open, [...keys].at(-1) ?? '')),
    );
    this.packer = new Packer(folder, this.images, background);
  }

  /** Opens or makes the sealed image of a template with a known digest, at one size. */
  async ensure(template: Template, sizeBytes: number, signal: AbortSignal | undefined): Promise<SealedImage> {
    const { sha256, path } = template;
    const task = new Task(`sealing ${path} at ${sizeBytes} bytes`, signal);
    // Not with another path that has the same bytes: if that goes, this one is still there.
    return this.#sealing.join(`${keyOf(sha256, sizeBytes)} ${path}`, task, (shared) =>
      this.#folder.use(async (folder) => {
        const open = this.images.open.get(sha256, sizeBytes);
        if (open !== undefined) return open;
        const there = (await this.images.isUnsealed(sha256, sizeBytes))
          ? undefined
          : await this.images.openSealed(folder, sha256, sizeBytes);
        if (there !== undefined) return there;
        // A process that finds a template replaced removes its images, and the same bytes may be published again.
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
          await this.images.openNew(sealed.record);
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
      const templateBytes = template.identity.sizeBytes;
      await this.ensure(template, templateBytes, task.signal);
      const openSealed = async () =>
        this.images.open.get(sha256, templateBytes) ?? this.images.openSealed(folder, sha256, templateBytes);
      const programs = this.#programs;
      const record = await sealGrown(task, folder, { openSealed, template, sizeBytes, programs });
      const grown =
        (await this.images.openNew(record)) ?? (await this.images.openSealed(folder, sha256, sizeBytes));
      if (grown === undefined) {
        // Another process may have removed the image that it was made from, which is open here.
        this.images.open.close(sha256, templateBytes);
        return undefined;
      }
      this.#grown.add(grown.key);
      return grown;
    }
    const opened = await native().openSource(path);
    try {
      // The path may hold another file by now, and its bytes must not be sealed under this digest.
      if (!sameTemplate(template.identity, opened.info.identity))
        throw templateChangedError(path, 'was replaced before it was sealed');
      const sealed = await unchanged(path, opened, () => sealTemplate(task, folder, path, opened, sha256));
      return (
        (await this.images.openNew(sealed.record)) ??
        (await this.images.openSealed(folder, sha256, sizeBytes))
      );
    } finally {
      native().dispose(opened.source);
    }
  }

  /** Packs the sealed image of a template at one size now, whatever the cost. Resolves to the outcome. */
  async pack(template: Template, sizeBytes: number, signal: AbortSignal | undefined): Promise<PackOutcome> {
    return this.packer.pack(await this.ensure(template, sizeBytes, signal), signal);
  }

  close(): void {
    this.packer.stop();
    this.images.open.closeAll();
  }
}
