// Keeps sealed images open, by digest and size. The oldest are closed when there are too many: each holds a descriptor,
// and Node raises the limit only to the system's maximum.

import { native } from '../addon/native.js';
import type { CloneSource } from './clone-source.js';

const OPEN_LIMIT = 256;

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
}

export function isSealedImage(source: CloneSource): source is SealedImage {
  return source.sealed;
}

export class OpenImages {
  // Nested maps, because a combined key would have to be built for each clone.
  readonly #images = new Map<string, Map<number, SealedImage>>();
  #count = 0;

  get(sha256: string, sizeBytes: number): SealedImage | undefined {
    return this.#images.get(sha256)?.get(sizeBytes);
  }

  add(sha256: string, sizeBytes: number, image: SealedImage): void {
    this.close(sha256, sizeBytes);
    const sizes = this.#images.get(sha256) ?? new Map<number, SealedImage>();
    this.#images.delete(sha256);
    this.#images.set(sha256, sizes.set(sizeBytes, image));
    this.#count++;
    while (this.#count > OPEN_LIMIT) this.#closeOldest();
  }

  close(sha256: string, sizeBytes: number): void {
    const sizes = this.#images.get(sha256);
    const image = sizes?.get(sizeBytes);
    if (sizes === undefined || image === undefined) return;
    native().dispose(image.source);
    this.#count--;
    sizes.delete(sizeBytes);
    if (sizes.size === 0) this.#images.delete(sha256);
  }

  closeAll(): void {
    while (this.#count > 0) this.#closeOldest();
  }

  /** Closes one image: of the digest that was opened longest ago, the size that was opened longest ago. */
  #closeOldest(): void {
    for (const [sha256, sizes] of this.#images) {
      for (const sizeBytes of sizes.keys()) {
        this.close(sha256, sizeBytes);
        return;
      }
    }
  }
}
