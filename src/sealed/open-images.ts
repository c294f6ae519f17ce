// Keeps sealed images open, by digest and size. The least recently used are closed when there are too many: each has a
// descriptor.

import { sameContents } from '../addon/identity.js';
import { native } from '../addon/native.js';
import { shareOfDescriptors } from '../system/descriptor-limit.js';
import { dropOldest } from '../system/drop-oldest.js';
import type { CloneSource } from './clone-source.js';

const OPEN_LIMIT = shareOfDescriptors(256);

// What is known of closed ones takes some 200 bytes each.
const KNOWN_LIMIT = 10_000;

export interface SealedImage extends CloneSource {
  readonly sealed: true;
  /** The name of its folder. */
  readonly key: string;
  readonly extents: number | undefined;
  readonly packed: boolean;
  /** Clones that this process made of it. */
  clones: number;
  /** How many of those clones are already reflected in its recorded last use. */
  clonesTouched: number;
  /** The clone count at which to consider packing it. */
  packAfter: number;
  /** Higher than that of each image that was last used before. */
  lastUse: number;
}

export function isSealedImage(source: CloneSource): source is SealedImage {
  return source.sealed;
}

export class OpenImages {
  // Nested maps, because a combined key would have to be built for each clone.
  readonly #images = new Map<string, Map<number, SealedImage>>();
  /** Those that were closed, by key: what their clones have cost still counts when they are opened again. */
  readonly #closed = new Map<string, SealedImage>();
  #count = 0;
  #uses = 0;

  get(sha256: string, sizeBytes: number): SealedImage | undefined {
    const image = this.#images.get(sha256)?.get(sizeBytes);
    if (image !== undefined) image.lastUse = ++this.#uses;
    return image;
  }

  /** What is known of an image, open or closed. Asking does not count as use. */
  known(sha256: string, sizeBytes: number, key: string): SealedImage | undefined {
    return this.#images.get(sha256)?.get(sizeBytes) ?? this.#closed.get(key);
  }

  add(sha256: string, sizeBytes: number, image: SealedImage): void {
    this.close(sha256, sizeBytes);
    const before = this.#closed.get(image.key);
    this.#closed.delete(image.key);
    if (before !== undefined && sameContents(before.identity, image.identity)) {
      const { clones, clonesTouched, packAfter } = before;
      Object.assign(image, { clones, clonesTouched, packAfter });
    }
    image.lastUse = ++this.#uses;
    const sizes = this.#images.get(sha256) ?? new Map<number, SealedImage>();
    this.#images.set(sha256, sizes.set(sizeBytes, image));
    this.#count++;
    while (this.#count > OPEN_LIMIT) this.#closeLeastUsed();
  }

  close(sha256: string, sizeBytes: number): void {
    const sizes = this.#images.get(sha256);
    const image = sizes?.get(sizeBytes);
    if (sizes === undefined || image === undefined) return;
    native().dispose(image.source);
    this.#count--;
    sizes.delete(sizeBytes);
    if (sizes.size === 0) this.#images.delete(sha256);
    this.#closed.set(image.key, image);
    dropOldest(this.#closed, KNOWN_LIMIT);
  }

  closeAll(): void {
    while (this.#count > 0) this.#closeLeastUsed();
  }

  #closeLeastUsed(): void {
    let least: { sha256: string; sizeBytes: number; lastUse: number } | undefined;
    for (const [sha256, sizes] of this.#images)
      for (const [sizeBytes, { lastUse }] of sizes)
        if (least === undefined || lastUse < least.lastUse) least = { sha256, sizeBytes, lastUse };
    if (least !== undefined) this.close(least.sha256, least.sizeBytes);
  }
}
