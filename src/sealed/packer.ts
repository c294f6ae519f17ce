// Packs sealed images into few extents: in the background once that is earned, or at once on request. Clones never wait
// for it.

import { channel } from 'node:diagnostics_channel';
import { native } from '../addon/native.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { FEW_EXTENTS } from '../image/extents.js';
import type { Background } from '../system/background.js';
import { traced } from '../system/events.js';
import { Task } from '../system/task.js';
import type { SealedImage } from './open-images.js';
import { type PackOutcome, packImage } from './pack-image.js';
import { isSealed, keyOf, partsOf, readRecord } from './seal-record.js';
import { openSealedImage, type SealedFolder, sealedImage } from './sealed-folder.js';

/** Published on the channel `microvm-rootfs:packing` for each packing decision about a sealed image. */
export interface PackingEvent {
  readonly path: string;
  readonly sizeBytes: number;
  readonly extents: number | undefined;
  readonly dataBytes: number;
  readonly outcome: PackOutcome;
}

const packingChannel = channel('microvm-rootfs:packing');

export class Packer {
  readonly #folder: ManagedFolder;
  readonly #sealed: SealedFolder;
  readonly #background: Background;
  readonly #ending = new AbortController();
  #isBusy = false;

  constructor(folder: ManagedFolder, sealed: SealedFolder, background: Background) {
    this.#folder = folder;
    this.#sealed = sealed;
    this.#background = background;
  }

  /** Called after each clone. From time to time, checks whether packing the image pays off. */
  cloned(image: SealedImage): void {
    image.clones++;
    if (image.clones < image.packAfter || this.#isBusy) return;
    image.packAfter = image.clones * 2;
    this.#isBusy = true;
    this.#background
      .start(`packing ${this.#sealed.path}/${image.key}`, async () => {
        const outcome = await this.#pack(image, this.#ending.signal, true);
        if (outcome === 'no-gain') image.packAfter = Number.POSITIVE_INFINITY;
      })
      .finally(() => {
        this.#isBusy = false;
      });
  }

  /** Packs an image now, whatever the cost. */
  pack(image: SealedImage, signal: AbortSignal | undefined): Promise<PackOutcome> {
    return this.#pack(image, signal, false);
  }

  async #pack({ key }: SealedImage, signal: AbortSignal | undefined, idle: boolean): Promise<PackOutcome> {
    const parts = partsOf(key);
    if (parts === undefined || parts.packed) return 'packed';
    const path = `${this.#sealed.path}/${key}`;
    const task = new Task(`packing ${path}`, signal);
    return this.#folder.use(async (folder) => {
      const opened = await openSealedImage(path);
      try {
        const record = await readRecord(path);
        // Another process may have packed it meanwhile. One that somebody wrote to must not be sealed again.
        if (opened === undefined || record === undefined || !isSealed(record, key, opened.info.identity)) {
          this.#sealed.open.close(parts.sha256, parts.sizeBytes);
          if (opened !== undefined && record !== undefined) await this.#sealed.discard(folder, key);
          return 'changed';
        }
        const image = sealedImage(key, false, opened, record);
        const dataBytes = opened.info.blocks * 512;
        const few = (image.extents ?? 0) <= FEW_EXTENTS;
        const outcome = few
          ? 'few-extents'
          : await traced({ operation: 'pack', path, bytes: dataBytes }, () =>
              packImage(task, folder, { image, record, dataBytes, idle }),
            );
        this.#report(image, dataBytes, outcome);
        if (outcome !== 'packed') return outcome;
        // From now on, clones use the packed image. No clone waited for it.
        await this.#sealed.openSealed(folder, parts.sha256, parts.sizeBytes);
        await this.#sealed.discard(folder, key);
        await this.#sealed.keepBudget(folder, keyOf(parts.sha256, parts.sizeBytes, 'packed'));
        return outcome;
      } finally {
        if (opened !== undefined) native().dispose(opened.source);
      }
    });
  }

  #report({ key, extents, identity }: SealedImage, dataBytes: number, outcome: PackOutcome): void {
    if (!packingChannel.hasSubscribers) return;
    const { sizeBytes } = identity;
    const event: PackingEvent = {
      path: `${this.#sealed.path}/${key}`,
      sizeBytes,
      extents,
      dataBytes,
      outcome,
    };
    packingChannel.publish(event);
  }

  /** Stops what is under way in the background at once. */
  stop(): void {
    this.#ending.abort();
  }
}
