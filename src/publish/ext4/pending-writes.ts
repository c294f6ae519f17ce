// Collects blocks for the image, and writes adjacent ones in one call.

import type { FileHandle } from 'node:fs/promises';
import { writeFully } from '../../image/write-bytes.js';
import { BLOCK_BYTES } from './layout.js';

const BUFFER_BYTES = 1024 * 1024;

export class PendingWrites {
  readonly #file: FileHandle;
  readonly #buffer = Buffer.allocUnsafe(BUFFER_BYTES);
  #firstBlock = 0;
  #filled = 0;

  constructor(file: FileHandle) {
    this.#file = file;
  }

  /** `bytes` must be whole blocks. The caller may reuse the buffer once the promise resolves. */
  async write(block: number, bytes: Buffer): Promise<void> {
    const follows = this.#firstBlock + this.#filled / BLOCK_BYTES === block;
    if (!follows || this.#filled + bytes.length > BUFFER_BYTES) await this.flush();
    if (bytes.length >= BUFFER_BYTES) return writeFully(this.#file, bytes, block * BLOCK_BYTES);
    if (this.#filled === 0) this.#firstBlock = block;
    bytes.copy(this.#buffer, this.#filled);
    this.#filled += bytes.length;
  }

  async flush(): Promise<void> {
    const length = this.#filled;
    this.#filled = 0;
    if (length > 0)
      await writeFully(this.#file, this.#buffer.subarray(0, length), this.#firstBlock * BLOCK_BYTES);
  }
}
