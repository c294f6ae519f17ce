// Writes a stream of bytes to a file, leaving zeros as holes.
import type { FileHandle } from 'node:fs/promises';
import { writeFully } from '../image/write-bytes.js';
import { BLOCK_BYTES, isZeroBlock } from '../image/zero-block.js';
import { openOfMode } from '../system/make-files.js';

const GAP_ZEROS = Buffer.alloc(256 * 1024);

// Size of one write: large enough that the system calls cost next to nothing.
const BUFFER_BYTES = 1024 * 1024;

// Gaps up to this size are written as zeros instead of left as holes, because reflinks cost per extent. The total is
// limited to the allowance plus a quarter of the data. Same rule as native/image/packed_copy.h.
const GAP_LIMIT = 16 * 1024 * 1024;
const FILL_ALLOWANCE = 8 * 1024 * 1024;

export interface SparseFileOptions {
  /** Write small gaps as zeros, so that the file has few extents. */
  readonly fillGaps: boolean;
}

export class SparseFile {
  readonly #file: FileHandle;
  readonly #fillGaps: boolean;
  #data = 0;
  #filledGaps = 0;
  /** Where the last data ended. */
  #dataEnd = 0;
  readonly #buffer = Buffer.allocUnsafe(BUFFER_BYTES);
  #filled = 0;
  #position = 0;

  private constructor(file: FileHandle, { fillGaps }: SparseFileOptions) {
    this.#file = file;
    this.#fillGaps = fillGaps;
  }

  /** Bytes so far, including zeros. */
  get length(): number {
    return this.#position + this.#filled;
  }

  /** Creates the file. The path must not exist. */
  static async create(path: string, options: SparseFileOptions = { fillGaps: false }): Promise<SparseFile> {
    return new SparseFile(await openOfMode(path, 'wx'), options);
  }

  async write(chunk: Buffer): Promise<void> {
    for (let done = 0; done < chunk.length; ) {
      const count = chunk.copy(this.#buffer, this.#filled, done);
      done += count;
      this.#filled += count;
      if (this.#filled === BUFFER_BYTES) await this.#flush();
    }
  }

  /** As if so many zeros were written. */
  async skip(length: number): Promise<void> {
    await this.#flush();
    this.#position += length;
  }

  /** Sets the length, which is needed if the file ends in a hole. Resolves to the length. */
  async finish(): Promise<number> {
    await this.#flush();
    await this.#file.truncate(this.#position);
    return this.#position;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  async #flush(): Promise<void> {
    const bytes = this.#buffer.subarray(0, this.#filled);
    const isZero = (at: number) => isZeroBlock(bytes.subarray(at, at + BLOCK_BYTES));
    for (let start = 0; start < bytes.length; ) {
      const zeros = isZero(start);
      let end = start;
      while (end < bytes.length && isZero(end) === zeros) end += BLOCK_BYTES;
      end = Math.min(end, bytes.length);
      if (!zeros) await this.#writeData(bytes.subarray(start, end), this.#position + start);
      start = end;
    }
    this.#position += bytes.length;
    this.#filled = 0;
  }

  async #writeData(bytes: Buffer, position: number): Promise<void> {
    if (this.#fillGaps) await this.#fillGap(position);
    await writeFully(this.#file, bytes, position);
    this.#data += bytes.length;
    this.#dataEnd = position + bytes.length;
  }

  async #fillGap(end: number): Promise<void> {
    const gap = end - this.#dataEnd;
    if (gap > GAP_LIMIT || this.#filledGaps + gap > FILL_ALLOWANCE + this.#data / 4) return;
    for (let at = this.#dataEnd; at < end; at += GAP_ZEROS.length)
      await writeFully(this.#file, GAP_ZEROS.subarray(0, Math.min(GAP_ZEROS.length, end - at)), at);
    this.#filledGaps += gap;
  }
}
