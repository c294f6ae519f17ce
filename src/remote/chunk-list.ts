// The chunks of an image, in order, and the packs that they are sent in. Its bytes are the index layer of an artifact,
// and what a host keeps of each image that it has pushed, pulled or read. docs/fleet.md describes them.
import { RootfsError } from '../system/errors.js';

const MAGIC = Buffer.from('MVRFIDX1', 'latin1');
const HEAD_BYTES = 24;
const PACK_BYTES = 4;
const CHUNK_BYTES = 40;
const ZERO_FLAG = 0x8000_0000;

/** The longest chunk of data. A chunk of zeros may be longer. */
export const CHUNK_LIMIT = 512 * 1024;
/** Ours have no less. Millions of tiny ones would take memory and time without end. */
const AVERAGE_LIMIT = 4096;
const FEW_CHUNKS = 1000;
export const ZERO_CHUNK_LIMIT = 64 * 1024 * 1024;

export interface Chunk {
  readonly offset: number;
  readonly length: number;
  /** Undefined for zeros. */
  readonly sha256: Buffer | undefined;
}

/** A run of chunks that make up one pack. */
export interface Pack {
  readonly first: number;
  readonly end: number;
  readonly sizeBytes: number;
}

/** Reads from the bytes: an image of a terabyte has millions of chunks, too many for an object each. */
export class ChunkList {
  readonly bytes: Buffer;
  readonly sizeBytes: number;
  readonly count: number;
  readonly packs: readonly Pack[];
  /** Where each chunk begins in the image, and at last its end. */
  readonly #offsets: Float64Array;
  readonly #chunksAt: number;

  private constructor(bytes: Buffer, packs: readonly Pack[], offsets: Float64Array) {
    this.bytes = bytes;
    this.sizeBytes = offsets.at(-1) ?? 0;
    this.count = offsets.length - 1;
    this.packs = packs;
    this.#offsets = offsets;
    this.#chunksAt = HEAD_BYTES + packs.length * PACK_BYTES;
  }

  offset(i: number): number {
    return this.#offsets[i] as number;
  }

  length(i: number): number {
    return this.offset(i + 1) - this.offset(i);
  }

  isZero(i: number): boolean {
    return (this.bytes.readUInt32LE(this.#at(i)) & ZERO_FLAG) !== 0;
  }

  /** Length of the compressed frame; 0 in a list without packs. */
  frameBytes(i: number): number {
    return this.bytes.readUInt32LE(this.#at(i) + 4);
  }

  /** A view. */
  sha256(i: number): Buffer {
    return this.bytes.subarray(this.#at(i) + 8, this.#at(i) + CHUNK_BYTES);
  }

  /** Bytes of the chunks that are not zeros. */
  get dataBytes(): number {
    let sum = 0;
    for (let i = 0; i < this.count; i++) if (!this.isZero(i)) sum += this.length(i);
    return sum;
  }

  #at(i: number): number {
    return this.#chunksAt + i * CHUNK_BYTES;
  }

  /**
   * Offsets in the image and in packs are sums of lengths, so chunks cannot overlap or leave gaps. Throws
   * `ARTIFACT_INVALID`.
   */
  static parse(bytes: Buffer): ChunkList {
    if (bytes.length < HEAD_BYTES || !bytes.subarray(0, 8).equals(MAGIC))
      throw invalid('it has another format');
    const sizeBytes = Number(bytes.readBigUInt64LE(8));
    const packCount = bytes.readUInt32LE(16);
    const count = bytes.readUInt32LE(20);
    if (bytes.length !== HEAD_BYTES + packCount * PACK_BYTES + count * CHUNK_BYTES)
      throw invalid('its length does not fit its entries');
    const chunksAt = HEAD_BYTES + packCount * PACK_BYTES;
    const offsets = readOffsets(bytes, chunksAt, count);
    if (offsets.at(-1) !== sizeBytes) throw invalid('its chunks do not add up to the image');
    return new ChunkList(bytes, readPacks(bytes, chunksAt, packCount, count), offsets);
  }

  static build(chunks: readonly ListedChunk[], packEnds: readonly number[] = []): ChunkList {
    const chunksAt = HEAD_BYTES + packEnds.length * PACK_BYTES;
    const bytes = Buffer.alloc(chunksAt + chunks.length * CHUNK_BYTES);
    MAGIC.copy(bytes);
    bytes.writeUInt32LE(packEnds.length, 16);
    bytes.writeUInt32LE(chunks.length, 20);
    for (const [i, end] of packEnds.entries())
      bytes.writeUInt32LE(end - (packEnds[i - 1] ?? 0), HEAD_BYTES + i * PACK_BYTES);
    let sizeBytes = 0;
    for (const [i, { length, sha256, frameBytes = 0 }] of chunks.entries()) {
      const at = chunksAt + i * CHUNK_BYTES;
      bytes.writeUInt32LE(sha256 === undefined ? (length | ZERO_FLAG) >>> 0 : length, at);
      bytes.writeUInt32LE(frameBytes, at + 4);
      sha256?.copy(bytes, at + 8);
      sizeBytes += length;
    }
    bytes.writeBigUInt64LE(BigInt(sizeBytes), 8);
    return ChunkList.parse(bytes);
  }

  /** The same chunks, with the packs and frames that were made of them. */
  withFrames(packEnds: readonly number[], frameBytes: Uint32Array): ChunkList {
    const chunksAt = HEAD_BYTES + packEnds.length * PACK_BYTES;
    const bytes = Buffer.concat([
      this.bytes.subarray(0, HEAD_BYTES),
      Buffer.alloc(packEnds.length * PACK_BYTES),
      this.bytes.subarray(this.#chunksAt),
    ]);
    bytes.writeUInt32LE(packEnds.length, 16);
    for (const [i, end] of packEnds.entries())
      bytes.writeUInt32LE(end - (packEnds[i - 1] ?? 0), HEAD_BYTES + i * PACK_BYTES);
    for (let i = 0; i < this.count; i++)
      bytes.writeUInt32LE(frameBytes[i] as number, chunksAt + i * CHUNK_BYTES + 4);
    return ChunkList.parse(bytes);
  }
}

export interface ListedChunk {
  readonly length: number;
  /** Undefined for zeros. */
  readonly sha256: Buffer | undefined;
  readonly frameBytes?: number;
}

function readOffsets(bytes: Buffer, chunksAt: number, count: number): Float64Array {
  const offsets = new Float64Array(count + 1);
  for (let i = 0; i < count; i++) {
    const word = bytes.readUInt32LE(chunksAt + i * CHUNK_BYTES);
    const isZero = (word & ZERO_FLAG) !== 0;
    const length = (word & ~ZERO_FLAG) >>> 0;
    if (length === 0 || length > (isZero ? ZERO_CHUNK_LIMIT : CHUNK_LIMIT))
      throw invalid(`chunk ${i} has ${length} bytes`);
    offsets[i + 1] = (offsets[i] as number) + length;
  }
  const sizeBytes = offsets[count] as number;
  if (count > FEW_CHUNKS && sizeBytes / count < AVERAGE_LIMIT)
    throw invalid(`it has ${count} chunks for ${sizeBytes} bytes`);
  return offsets;
}

function readPacks(bytes: Buffer, chunksAt: number, packCount: number, count: number): Pack[] {
  const packs: Pack[] = [];
  let first = 0;
  for (let i = 0; i < packCount; i++) {
    const end = first + bytes.readUInt32LE(HEAD_BYTES + i * PACK_BYTES);
    if (end === first || end > count) throw invalid(`pack ${i} has chunks that are not there`);
    let sizeBytes = 0;
    for (let k = first; k < end; k++) {
      const frame = bytes.readUInt32LE(chunksAt + k * CHUNK_BYTES + 4);
      if (frame === 0) throw invalid(`chunk ${k} has no bytes in its pack`);
      sizeBytes += frame;
    }
    packs.push({ first, end, sizeBytes });
    first = end;
  }
  if (packCount > 0 && first !== count) throw invalid('it has chunks that are in no pack');
  return packs;
}

function invalid(why: string): RootfsError {
  return new RootfsError(
    'ARTIFACT_INVALID',
    `the index of the artifact cannot be used: ${why}; push it again`,
  );
}
