// zstd frames, one for each chunk. The zstd program makes them; those of zeros are written by hand. Format: RFC 8878.

const MAGIC = 0xfd2fb528;
const SKIPPED_MAGIC = 0x184d2a50;
const BLOCK_LIMIT = 128 * 1024;
const RAW = 0;
const RLE = 1;

/** A frame of zeros. Its first block is a raw byte, because old decoders reject a first block of one repeated byte. */
export function zeroFrame(length: number): Buffer {
  const head = Buffer.alloc(10);
  head.writeUInt32LE(MAGIC, 0);
  // A content size of 4 bytes, no checksum, no dictionary, and a window of 128 KiB.
  head.writeUInt8(0b1000_0000, 4);
  head.writeUInt8(7 << 3, 5);
  head.writeUInt32LE(length, 6);
  const blocks: Buffer[] = [block(RAW, 1, length === 1)];
  for (let left = length - 1; left > 0; ) {
    const size = Math.min(left, BLOCK_LIMIT);
    left -= size;
    blocks.push(block(RLE, size, left === 0));
  }
  return Buffer.concat([head, ...blocks]);
}

/** A frame of a few bytes, as they are. */
export function rawFrame(bytes: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUInt32LE(MAGIC, 0);
  // A single segment with its content size, no checksum, no dictionary.
  head.writeUInt8(0b0010_0000, 4);
  head.writeUInt8(bytes.length, 5);
  head.writeUIntLE((bytes.length << 3) | (RAW << 1) | 1, 6, 3);
  return Buffer.concat([head, bytes]);
}

/** What decoders pass over. */
export function skippedFrame(length: number): Buffer {
  const frame = Buffer.alloc(8 + length);
  frame.writeUInt32LE(SKIPPED_MAGIC, 0);
  frame.writeUInt32LE(length, 4);
  return frame;
}

/**
 * Whether this is one frame from the first byte to the last, as its heads and those of its blocks say. Only then will a
 * decoder not take what comes behind it for a part of it.
 */
export function isOneFrame(bytes: Buffer): boolean {
  if (bytes.length < 9 || bytes.readUInt32LE(0) !== MAGIC) return false;
  const checksumBytes = (bytes.readUInt8(4) & 4) === 0 ? 0 : 4;
  for (let at = headLength(bytes); at + 3 <= bytes.length; ) {
    const { contentBytes, isLast } = readBlockHead(bytes, at);
    at += 3 + contentBytes;
    if (isLast) return at + checksumBytes === bytes.length;
  }
  return false;
}

/** With its one byte, a zero. */
function block(type: number, size: number, isLast: boolean): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUIntLE((size << 3) | (type << 1) | (isLast ? 1 : 0), 0, 3);
  return bytes;
}

/** Finds the lengths of frames in a stream of them. */
export class FrameLengths {
  readonly lengths: number[] = [];
  #pending: Buffer = Buffer.alloc(0);
  /** Bytes of the current frame so far. */
  #length = 0;
  /** Bytes of the current block that are still to come. */
  #skip = 0;
  #state: 'head' | 'block' | 'last' = 'head';

  add(bytes: Buffer): void {
    this.#pending = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes]);
    while (this.#step());
    // A view would keep the whole buffer.
    this.#pending = Buffer.from(this.#pending);
  }

  /** Whether the last frame has come to its end. */
  get isWhole(): boolean {
    return this.#state === 'head' && this.#pending.length === 0;
  }

  #step(): boolean {
    if (this.#skip > 0) {
      const count = Math.min(this.#skip, this.#pending.length);
      this.#pass(count);
      this.#skip -= count;
      if (this.#skip > 0) return false;
    }
    if (this.#state === 'last') {
      this.lengths.push(this.#length);
      this.#length = 0;
      this.#state = 'head';
    }
    return this.#state === 'head' ? this.#readHead() : this.#readBlock();
  }

  #readHead(): boolean {
    if (this.#pending.length < 5) return false;
    const length = headLength(this.#pending);
    if (this.#pending.length < length) return false;
    this.#pass(length);
    this.#state = 'block';
    return true;
  }

  #readBlock(): boolean {
    if (this.#pending.length < 3) return false;
    const { contentBytes, isLast } = readBlockHead(this.#pending, 0);
    this.#pass(3);
    this.#skip = contentBytes;
    if (isLast) this.#state = 'last';
    return true;
  }

  #pass(count: number): void {
    this.#length += count;
    this.#pending = this.#pending.subarray(count);
  }
}

function readBlockHead(bytes: Buffer, at: number): { contentBytes: number; isLast: boolean } {
  const head = bytes.readUIntLE(at, 3);
  const type = (head >> 1) & 3;
  return { contentBytes: type === RLE ? 1 : head >>> 3, isLast: (head & 1) !== 0 };
}

function headLength(bytes: Buffer): number {
  if (bytes.readUInt32LE(0) !== MAGIC) throw new Error('this is not a zstd frame');
  const descriptor = bytes.readUInt8(4);
  const isSingle = (descriptor & 0x20) !== 0;
  const sizeFlag = descriptor >> 6;
  const sizeBytes = sizeFlag === 0 ? (isSingle ? 1 : 0) : 2 ** sizeFlag;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] as number;
  return 5 + (isSingle ? 0 : 1) + dictionaryBytes + sizeBytes;
}
