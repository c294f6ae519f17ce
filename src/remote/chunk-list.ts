// The chunks of an image, in order, and the packs that they are sent in. Its bytes are the index layer of an artifact,
// and what a host keeps of each image that it has pushed, pulled or read. docs/fleet.md describes them.
import type { FileHandle } from 'node:fs/promises';
import { readFully } from '../image/read-bytes.js';
import { RootfsError } from '../system/errors.js';
import { Pause } from '../system/pause.js';

const MAGIC = Buffer.from('MVRFIDX1', 'latin1');
const HEAD_BYTES = 24;
const PACK_BYTES = 4;
const ENTRY_BYTES = 40;
const ZERO_FLAG = 0x8000_0000;
/** In one allocation of {@link ChunkListBuilder}: 40 KiB. */
const SLAB_CHUNKS = 1024;

/** The longest chunk of data. A chunk of zeros may be longer. */
export const CHUNK_LIMIT = 512 * 1024;
/** The least average length of more than a few chunks: millions of tiny ones would take too much memory and time. */
const AVERAGE_LIMIT = 4096;
const FEW_CHUNKS = 1000;
export const ZERO_CHUNK_LIMIT = 64 * 1024 * 1024;

/** A run of chunks that make up one pack. */
export interface Pack {
  readonly first: number;
  readonly end: number;
  readonly sizeBytes: number;
}

/**
 * Reads from the bytes: an image of a terabyte has millions of chunks, too many for an object each. What goes through
 * all of them does so in slices, for the event loop.
 */
export class ChunkList {
  readonly bytes: Buffer;
  readonly sizeBytes: number;
  /** Bytes of the chunks that are not zeros. */
  readonly dataBytes: number;
  readonly count: number;
  readonly packs: readonly Pack[];
  /** Where each chunk begins in the image, and at last its end. */
  readonly #offsets: Float64Array;
  readonly #chunksAt: number;

  private constructor(bytes: Buffer, packs: readonly Pack[], { offsets, dataBytes }: Sizes) {
    this.bytes = bytes;
    this.sizeBytes = offsets.at(-1) ?? 0;
    this.dataBytes = dataBytes;
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

  /** A view, not a copy. */
  sha256(i: number): Buffer {
    return this.bytes.subarray(this.#at(i) + 8, this.#at(i) + ENTRY_BYTES);
  }

  /** The first 32 bits of the digest. */
  digestStart(i: number): number {
    return this.bytes.readUInt32BE(this.#at(i) + 8);
  }

  #at(i: number): number {
    return this.#chunksAt + i * ENTRY_BYTES;
  }

  /**
   * Offsets in the image and in packs are sums of lengths, so chunks cannot overlap or leave gaps. Rejects with
   * `ARTIFACT_INVALID`.
   */
  static async parse(bytes: Buffer): Promise<ChunkList> {
    if (bytes.length < HEAD_BYTES || !bytes.subarray(0, 8).equals(MAGIC))
      throw invalid('it has another format');
    const sizeBytes = Number(bytes.readBigUInt64LE(8));
    const packCount = bytes.readUInt32LE(16);
    const count = bytes.readUInt32LE(20);
    if (bytes.length !== HEAD_BYTES + packCount * PACK_BYTES + count * ENTRY_BYTES)
      throw invalid('its length does not fit its entries');
    const chunksAt = HEAD_BYTES + packCount * PACK_BYTES;
    const pause = new Pause();
    const sizes = await readSizes(bytes, chunksAt, count, pause);
    if (sizes.offsets.at(-1) !== sizeBytes) throw invalid('its chunks do not add up to the image');
    return new ChunkList(bytes, await readPacks(bytes, chunksAt, packCount, count, pause), sizes);
  }

  /** Of the image, as the head of the list in a file says. NaN if it cannot be read. */
  static async lengthIn(file: FileHandle): Promise<number> {
    const head = Buffer.alloc(HEAD_BYTES);
    const bytesRead = await readFully(file, head, 0).catch(() => 0);
    return bytesRead === HEAD_BYTES ? Number(head.readBigUInt64LE(8)) : Number.NaN;
  }

  /** The same chunks, with the packs and frames that were made of them. */
  withFrames(packEnds: readonly number[], frameBytes: Uint32Array): Promise<ChunkList> {
    return listOf(this.count, this.sizeBytes, packEnds, (bytes, at, first, end) => {
      this.bytes.copy(bytes, at, this.#at(first), this.#at(end));
      for (let i = first; i < end; i++)
        bytes.writeUInt32LE(frameBytes[i] as number, at + (i - first) * ENTRY_BYTES + 4);
    });
  }
}

export interface ListedChunk {
  readonly length: number;
  /** Undefined for zeros. */
  readonly sha256: Buffer | undefined;
  readonly frameBytes?: number;
}

/** Keeps chunks as a list does: a buffer for the digest of each would take five times as much. */
export class ChunkListBuilder {
  readonly #slabs: Buffer[] = [];
  #count = 0;
  #sizeBytes = 0;

  add({ length, sha256, frameBytes = 0 }: ListedChunk): void {
    const at = (this.#count++ % SLAB_CHUNKS) * ENTRY_BYTES;
    if (at === 0) this.#slabs.push(Buffer.alloc(SLAB_CHUNKS * ENTRY_BYTES));
    const slab = this.#slabs.at(-1) as Buffer;
    slab.writeUInt32LE(sha256 === undefined ? (length | ZERO_FLAG) >>> 0 : length, at);
    slab.writeUInt32LE(frameBytes, at + 4);
    sha256?.copy(slab, at + 8);
    this.#sizeBytes += length;
  }

  /** Rejects with `ARTIFACT_INVALID` for what would not be read back. */
  finish(packEnds: readonly number[] = []): Promise<ChunkList> {
    return listOf(this.#count, this.#sizeBytes, packEnds, (bytes, at, first, end) => {
      for (let i = first; i < end; ) {
        const k = i % SLAB_CHUNKS;
        const count = Math.min(SLAB_CHUNKS - k, end - i);
        const slab = this.#slabs[Math.floor(i / SLAB_CHUNKS)] as Buffer;
        slab.copy(bytes, at + (i - first) * ENTRY_BYTES, k * ENTRY_BYTES, (k + count) * ENTRY_BYTES);
        i += count;
      }
    });
  }
}

/** `write` puts the entries of some chunks into the list, from `at` on. */
async function listOf(
  count: number,
  sizeBytes: number,
  packEnds: readonly number[],
  write: (bytes: Buffer, at: number, first: number, end: number) => void,
): Promise<ChunkList> {
  const chunksAt = HEAD_BYTES + packEnds.length * PACK_BYTES;
  const bytes = Buffer.alloc(chunksAt + count * ENTRY_BYTES);
  MAGIC.copy(bytes);
  bytes.writeBigUInt64LE(BigInt(sizeBytes), 8);
  bytes.writeUInt32LE(packEnds.length, 16);
  bytes.writeUInt32LE(count, 20);
  for (const [i, end] of packEnds.entries())
    bytes.writeUInt32LE(end - (packEnds[i - 1] ?? 0), HEAD_BYTES + i * PACK_BYTES);
  await new Pause().inRanges(0, count, (first, end) =>
    write(bytes, chunksAt + first * ENTRY_BYTES, first, end),
  );
  return ChunkList.parse(bytes);
}

interface Sizes {
  readonly offsets: Float64Array;
  readonly dataBytes: number;
}

async function readSizes(bytes: Buffer, chunksAt: number, count: number, pause: Pause): Promise<Sizes> {
  const offsets = new Float64Array(count + 1);
  let dataBytes = 0;
  await pause.inRanges(0, count, (first, end) => {
    for (let i = first; i < end; i++) {
      const word = bytes.readUInt32LE(chunksAt + i * ENTRY_BYTES);
      const isZero = (word & ZERO_FLAG) !== 0;
      const length = (word & ~ZERO_FLAG) >>> 0;
      if (length === 0 || length > (isZero ? ZERO_CHUNK_LIMIT : CHUNK_LIMIT))
        throw invalid(`chunk ${i} has ${length} bytes`);
      offsets[i + 1] = (offsets[i] as number) + length;
      if (!isZero) dataBytes += length;
    }
  });
  const sizeBytes = offsets[count] as number;
  if (count > FEW_CHUNKS && sizeBytes / count < AVERAGE_LIMIT)
    throw invalid(`it has ${count} chunks for ${sizeBytes} bytes`);
  return { offsets, dataBytes };
}

async function readPacks(
  bytes: Buffer,
  chunksAt: number,
  packCount: number,
  count: number,
  pause: Pause,
): Promise<Pack[]> {
  const packs: Pack[] = [];
  let first = 0;
  for (let i = 0; i < packCount; i++) {
    const end = first + bytes.readUInt32LE(HEAD_BYTES + i * PACK_BYTES);
    if (end === first || end > count) throw invalid(`pack ${i} has chunks that are not there`);
    let sizeBytes = 0;
    await pause.inRanges(first, end, (from, to) => {
      for (let k = from; k < to; k++) {
        const frame = bytes.readUInt32LE(chunksAt + k * ENTRY_BYTES + 4);
        if (frame === 0) throw invalid(`chunk ${k} has no bytes in its pack`);
        sizeBytes += frame;
      }
    });
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
