// Cuts an image into chunks by its content, at 4 KiB boundaries. File systems place files by whole blocks, so a file
// gives the same chunks wherever it lies. A chunk ends at a block whose hash is small; about one block in 24 has one.

import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { readFully } from '../image/read-bytes.js';
import { BLOCK_BYTES, isZeroBlock, ZERO_BLOCK } from '../image/zero-block.js';
import type { Task } from '../system/task.js';
import { CHUNK_LIMIT, type ChunkList, ChunkListBuilder, ZERO_CHUNK_LIMIT } from './chunk-list.js';

const SHORTEST_CHUNK = 32 * 1024;
/** Hashes below this end a chunk, of 2^32: with the shortest chunk of 8 blocks the average is 32 blocks, 128 KiB. */
const ENDS_BELOW = Math.floor(2 ** 32 / 24);
const READ_BYTES = 1024 * 1024;

export interface CutImage {
  readonly list: ChunkList;
  /** Of the bytes that were cut. A disk can change some without a trace in the times of the file. */
  readonly sha256: string;
}

/** Cuts the first `sizeBytes` of a file. */
export async function cutImage(
  task: Task,
  file: FileHandle,
  sizeBytes: number,
  onProgress: (bytesDone: number) => void,
): Promise<CutImage> {
  const cutter = new Cutter();
  const whole = createHash('sha256');
  const buffer = Buffer.allocUnsafe(READ_BYTES);
  for (let at = 0; at < sizeBytes; ) {
    task.checkAborted();
    const wanted = Math.min(READ_BYTES, sizeBytes - at);
    const count = await readFully(file, buffer.subarray(0, wanted), at);
    if (count < wanted) break;
    whole.update(buffer.subarray(0, count));
    for (let k = 0; k < count; k += BLOCK_BYTES)
      cutter.add(buffer.subarray(k, Math.min(k + BLOCK_BYTES, count)));
    at += count;
    onProgress(at);
  }
  return { list: await cutter.finish(), sha256: whole.digest('hex') };
}

class Cutter {
  readonly #chunks = new ChunkListBuilder();
  #hash = createHash('sha256');
  /** Bytes of the current data chunk. */
  #dataBytes = 0;
  /** Zeros after it: a chunk of their own if there are enough, else part of the data. */
  #zeroBytes = 0;

  add(block: Buffer): void {
    if (isZeroBlock(block)) this.#addZeros(block.length);
    else {
      this.#endZeros();
      this.#addData(block);
    }
  }

  finish(): Promise<ChunkList> {
    this.#endZeros();
    this.#endData();
    return this.#chunks.finish();
  }

  #addZeros(length: number): void {
    this.#zeroBytes += length;
    if (this.#zeroBytes >= SHORTEST_CHUNK) this.#endData();
    if (this.#zeroBytes === ZERO_CHUNK_LIMIT) this.#endZeros();
  }

  #endZeros(): void {
    if (this.#zeroBytes >= SHORTEST_CHUNK) this.#chunks.add({ length: this.#zeroBytes, sha256: undefined });
    else {
      for (let left = this.#zeroBytes; left > 0; left -= BLOCK_BYTES)
        this.#addData(ZERO_BLOCK.subarray(0, Math.min(left, BLOCK_BYTES)));
    }
    this.#zeroBytes = 0;
  }

  #addData(block: Buffer): void {
    this.#hash.update(block);
    this.#dataBytes += block.length;
    const mayEnd = this.#dataBytes >= SHORTEST_CHUNK && mix(block) < ENDS_BELOW;
    if (mayEnd || this.#dataBytes >= CHUNK_LIMIT) this.#endData();
  }

  #endData(): void {
    if (this.#dataBytes === 0) return;
    this.#chunks.add({ length: this.#dataBytes, sha256: this.#hash.digest() });
    this.#hash = createHash('sha256');
    this.#dataBytes = 0;
  }
}

/** A 32-bit hash of a block (FNV-1a by words, with a final mix). Part of the format: other bits would cut elsewhere. */
function mix(block: Buffer): number {
  let hash = 0x811c9dc5;
  const words = block.length >>> 2;
  if (block.byteOffset % 4 === 0) {
    const view = new Uint32Array(block.buffer, block.byteOffset, words);
    for (let i = 0; i < words; i++) hash = Math.imul(hash ^ (view[i] as number), 0x01000193);
  } else {
    for (let i = 0; i < words; i++) hash = Math.imul(hash ^ block.readUInt32LE(i * 4), 0x01000193);
  }
  hash ^= hash >>> 16;
  hash = Math.imul(hash, 0x85ebca6b);
  hash ^= hash >>> 13;
  return hash >>> 0;
}
