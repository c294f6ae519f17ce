// Sealed images that are open, by digest and size. The oldest are closed when there are too many: each holds a descriptor, of which Node
// lets a process have as many as the system allows at all.

import { native } from '../addon/native.js';
import type { CloneSource } from './clone-source.js';

const OPEN_LIMIT = 512;

export interface SealedImage extends CloneSource {
  readonly sealed: true;
  readonly extents: number | undefined;
}

export class OpenImages {
  // Nested, since a key of both would have to be made for each clone.
  readonly #images = new Map<string, Map<number, SealedImage>>();
  #count = 0;

  get(sha256: string, sizeBytes: number): SealedImage | undefined {
    return this.#images.get(sha256)?.get(sizeBytes);
  }

  add(sha256: string, sizeBytes: number, image: SealedImage): void {
    this.close(sha256, sizeBytes);
    const sizes = this.#images.get(sha256) ?? new Map<number, SealedImage>();
    this.#images.set(sha256, sizes.set(sizeBytes, image));
    this.#count++;
    for (const oldest of this.#images.keys()) {
      if (this.#count <= OPEN_LIMIT) break;
      if (oldest !== sha256) this.closeAll(oldest);
    }
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

  /** Of one digest, or all there are. */
  closeAll(sha256?: string): void {
    for (const [key, sizes] of this.#images) {
      if (sha256 !== undefined && key !== sha256) continue;
      for (const sizeBytes of [...sizes.keys()]) this.close(key, sizeBytes);
    }
  }
}
