// Allocates blocks and inodes, in order, from the block groups of a new filesystem.

import type { FileHandle } from 'node:fs/promises';
import { crc32c } from '../../image/crc32c.js';
import { readFully } from '../../image/read-bytes.js';
import { writeFully } from '../../image/write-bytes.js';
import {
  BLOCK_BYTES,
  BLOCKS_UNINITIALISED,
  DESCRIPTOR,
  INODES_UNINITIALISED,
  readSplit32,
  SUPERBLOCK,
  writeSplit16,
  writeSplit32,
} from './layout.js';

/** A run of adjacent blocks. */
export interface Run {
  readonly start: number;
  readonly count: number;
}

/** The filesystem has run out of blocks or inodes. */
export class FilesystemFull extends Error {}

export class Groups {
  readonly inodesPerGroup: number;
  /** Checksum seed for structures that belong to the whole filesystem. */
  readonly checksumSeed: number;
  readonly freeBlocks: number;
  readonly #file: FileHandle;
  readonly #superblock: Buffer;
  readonly #descriptors: Buffer;
  readonly #blocks: number;
  readonly #blocksPerGroup: number;
  readonly #count: number;
  // The group that blocks are currently allocated from, its bitmap, and its free blocks.
  #group = -1;
  #bitmap: Buffer = Buffer.alloc(0);
  #free: Run[] = [];
  #taken = 0;

  private constructor(file: FileHandle, superblock: Buffer, descriptors: Buffer) {
    this.#file = file;
    this.#superblock = superblock;
    this.#descriptors = descriptors;
    this.#blocks = blocksOf(superblock);
    this.#blocksPerGroup = superblock.readUInt32LE(SUPERBLOCK.blocksPerGroup);
    this.#count = descriptors.length / DESCRIPTOR.length;
    this.inodesPerGroup = superblock.readUInt32LE(SUPERBLOCK.inodesPerGroup);
    this.freeBlocks = readSplit32(superblock, SUPERBLOCK.freeBlocksLow, SUPERBLOCK.freeBlocksHigh);
    const uuid = superblock.subarray(SUPERBLOCK.uuid, SUPERBLOCK.uuid + SUPERBLOCK.uuidLength);
    this.checksumSeed = crc32c(0xffff_ffff, uuid);
  }

  static async read(file: FileHandle): Promise<Groups> {
    const superblock = await readAt(file, SUPERBLOCK.offset, SUPERBLOCK.length);
    const groups = Math.ceil(blocksOf(superblock) / superblock.readUInt32LE(SUPERBLOCK.blocksPerGroup));
    return new Groups(file, superblock, await readAt(file, BLOCK_BYTES, groups * DESCRIPTOR.length));
  }

  get inodes(): number {
    return this.#count * this.inodesPerGroup;
  }

  /** Byte offset of an inode in the image. */
  inodeTable(group: number): number {
    const descriptor = this.#descriptor(group);
    return readSplit32(descriptor, DESCRIPTOR.inodeTableLow, DESCRIPTOR.inodeTableHigh) * BLOCK_BYTES;
  }

  /** Allocates `count` blocks and returns them in disk order. */
  async allocate(count: number): Promise<Run[]> {
    const runs: Run[] = [];
    for (let left = count; left > 0; ) {
      const free = this.#free[0];
      if (free === undefined) {
        await this.#nextGroup();
        continue;
      }
      const taken = Math.min(left, free.count);
      const last = runs.at(-1);
      if (last !== undefined && last.start + last.count === free.start)
        runs[runs.length - 1] = { start: last.start, count: last.count + taken };
      else runs.push({ start: free.start, count: taken });
      this.#mark(free.start, taken);
      if (taken === free.count) this.#free.shift();
      else this.#free[0] = { start: free.start + taken, count: free.count - taken };
      left -= taken;
    }
    return runs;
  }

  /**
   * Writes the allocation to disk. All inodes up to `usedInodes` are in use. `folders` gives the number of folders in
   * each group, including the root folder and lost+found.
   */
  async finish(usedInodes: number, folders: readonly number[]): Promise<void> {
    await this.#leaveGroup();
    for (let group = 0; group * this.inodesPerGroup < usedInodes; group++) {
      const used = Math.min(usedInodes - group * this.inodesPerGroup, this.inodesPerGroup);
      await this.#useInodes(group, used, folders[group] ?? 0);
    }
    for (let group = 0; group < this.#count; group++) this.#writeDescriptorChecksum(group);
    writeSplit32(
      this.#superblock,
      this.freeBlocks - this.#taken,
      SUPERBLOCK.freeBlocksLow,
      SUPERBLOCK.freeBlocksHigh,
    );
    this.#superblock.writeUInt32LE(this.inodes - usedInodes, SUPERBLOCK.freeInodes);
    // mke2fs counts the zeros that it writes where it cannot punch holes, so its count depends on the host.
    this.#superblock.writeBigUInt64LE(0n, SUPERBLOCK.writtenKiB);
    for (let group = 0; group < this.#count; group++)
      if (hasSuperblock(group)) await this.#writeSuperblock(group);
  }

  #descriptor(group: number): Buffer {
    return this.#descriptors.subarray(group * DESCRIPTOR.length, (group + 1) * DESCRIPTOR.length);
  }

  async #nextGroup(): Promise<void> {
    await this.#leaveGroup();
    this.#group++;
    if (this.#group >= this.#count) throw new FilesystemFull('no free block is left');
    this.#bitmap = await this.#readBlockBitmap(this.#group);
    this.#free = clearRuns(this.#bitmap, this.#group * this.#blocksPerGroup, this.#blocksIn(this.#group));
  }

  /** Writes the bitmap of the group that blocks were last allocated from. */
  async #leaveGroup(): Promise<void> {
    const group = this.#group;
    if (group < 0 || group >= this.#count) return;
    const free = this.#free.reduce((sum, { count }) => sum + count, 0);
    const descriptor = this.#descriptor(group);
    const flags = descriptor.readUInt16LE(DESCRIPTOR.flags);
    descriptor.writeUInt16LE(flags & ~BLOCKS_UNINITIALISED, DESCRIPTOR.flags);
    writeSplit16(descriptor, free, DESCRIPTOR.freeBlocksLow, DESCRIPTOR.freeBlocksHigh);
    const checksum = crc32c(this.checksumSeed, this.#bitmap.subarray(0, this.#blocksPerGroup / 8));
    writeSplit16(descriptor, checksum, DESCRIPTOR.blockBitmapChecksumLow, DESCRIPTOR.blockBitmapChecksumHigh);
    await writeFully(this.#file, this.#bitmap, blockBitmapOf(descriptor) * BLOCK_BYTES);
  }

  async #useInodes(group: number, used: number, folders: number): Promise<void> {
    const descriptor = this.#descriptor(group);
    const bitmap = Buffer.alloc(BLOCK_BYTES, 0xff);
    for (let bit = used; bit < this.inodesPerGroup; bit++) clearBit(bitmap, bit);
    const unused = this.inodesPerGroup - used;
    const flags = descriptor.readUInt16LE(DESCRIPTOR.flags);
    descriptor.writeUInt16LE(flags & ~INODES_UNINITIALISED, DESCRIPTOR.flags);
    writeSplit16(descriptor, unused, DESCRIPTOR.freeInodesLow, DESCRIPTOR.freeInodesHigh);
    writeSplit16(descriptor, unused, DESCRIPTOR.unusedInodesLow, DESCRIPTOR.unusedInodesHigh);
    writeSplit16(descriptor, folders, DESCRIPTOR.usedFoldersLow, DESCRIPTOR.usedFoldersHigh);
    const checksum = crc32c(this.checksumSeed, bitmap.subarray(0, this.inodesPerGroup / 8));
    writeSplit16(descriptor, checksum, DESCRIPTOR.inodeBitmapChecksumLow, DESCRIPTOR.inodeBitmapChecksumHigh);
    await writeFully(this.#file, bitmap, inodeBitmapOf(descriptor) * BLOCK_BYTES);
  }

  #writeDescriptorChecksum(group: number): void {
    const descriptor = this.#descriptor(group);
    const number = Buffer.alloc(4);
    number.writeUInt32LE(group);
    descriptor.writeUInt16LE(0, DESCRIPTOR.checksum);
    const checksum = crc32c(crc32c(this.checksumSeed, number), descriptor);
    descriptor.writeUInt16LE(checksum & 0xffff, DESCRIPTOR.checksum);
  }

  /** The superblock and all descriptors, for a group that holds the originals or a copy. */
  async #writeSuperblock(group: number): Promise<void> {
    const first = group * this.#blocksPerGroup * BLOCK_BYTES;
    const superblock = Buffer.from(this.#superblock);
    superblock.writeUInt16LE(group, SUPERBLOCK.groupNumber);
    const checksum = crc32c(0xffff_ffff, superblock.subarray(0, SUPERBLOCK.checksum));
    superblock.writeUInt32LE(checksum, SUPERBLOCK.checksum);
    await writeFully(this.#file, superblock, group === 0 ? SUPERBLOCK.offset : first);
    await writeFully(this.#file, this.#descriptors, first + BLOCK_BYTES);
  }

  #mark(start: number, count: number): void {
    const first = start - this.#group * this.#blocksPerGroup;
    for (let bit = first; bit < first + count; bit++) setBit(this.#bitmap, bit);
    this.#taken += count;
  }

  #blocksIn(group: number): number {
    return Math.min(this.#blocksPerGroup, this.#blocks - group * this.#blocksPerGroup);
  }

  async #readBlockBitmap(group: number): Promise<Buffer> {
    const descriptor = this.#descriptor(group);
    if ((descriptor.readUInt16LE(DESCRIPTOR.flags) & BLOCKS_UNINITIALISED) === 0)
      return readAt(this.#file, blockBitmapOf(descriptor) * BLOCK_BYTES, BLOCK_BYTES);
    return this.#bitmapOfMetadata(group);
  }

  /** The content of a bitmap that was never written: only the filesystem's own blocks are in use. */
  #bitmapOfMetadata(group: number): Buffer {
    const bitmap = Buffer.alloc(BLOCK_BYTES);
    const first = group * this.#blocksPerGroup;
    const use = (start: number, count: number) => {
      const from = Math.max(0, start - first);
      const to = Math.min(this.#blocksPerGroup, start + count - first);
      for (let bit = from; bit < to; bit++) setBit(bitmap, bit);
    };
    if (hasSuperblock(group)) {
      const reserved = this.#superblock.readUInt16LE(SUPERBLOCK.reservedDescriptorBlocks);
      use(first, 1 + Math.ceil(this.#descriptors.length / BLOCK_BYTES) + reserved);
    }
    const tableBlocks = (this.inodesPerGroup * 256) / BLOCK_BYTES;
    for (let other = 0; other < this.#count; other++) {
      const descriptor = this.#descriptor(other);
      use(blockBitmapOf(descriptor), 1);
      use(inodeBitmapOf(descriptor), 1);
      use(this.inodeTable(other) / BLOCK_BYTES, tableBlocks);
    }
    // A group may have fewer blocks than its bitmap has bits, also where it is not the last.
    for (let bit = this.#blocksIn(group); bit < bitmap.length * 8; bit++) setBit(bitmap, bit);
    return bitmap;
  }
}

function blocksOf(superblock: Buffer): number {
  return readSplit32(superblock, SUPERBLOCK.blocksLow, SUPERBLOCK.blocksHigh);
}

function blockBitmapOf(descriptor: Buffer): number {
  return readSplit32(descriptor, DESCRIPTOR.blockBitmapLow, DESCRIPTOR.blockBitmapHigh);
}

function inodeBitmapOf(descriptor: Buffer): number {
  return readSplit32(descriptor, DESCRIPTOR.inodeBitmapLow, DESCRIPTOR.inodeBitmapHigh);
}

/** The sparse_super feature keeps copies in groups 0, 1 and the powers of 3, 5 and 7. */
function hasSuperblock(group: number): boolean {
  return group <= 1 || [3, 5, 7].some((base) => isPowerOf(base, group));
}

function isPowerOf(base: number, number: number): boolean {
  let power = base;
  while (power < number) power *= base;
  return power === number;
}

/** The runs of clear bits among the first `count` bits, as blocks starting at `first`. */
function clearRuns(bitmap: Buffer, first: number, count: number): Run[] {
  const runs: Run[] = [];
  for (let bit = 0; bit < count; ) {
    if (isSet(bitmap, bit)) {
      bit++;
      continue;
    }
    const start = bit;
    while (bit < count && !isSet(bitmap, bit)) bit++;
    runs.push({ start: first + start, count: bit - start });
  }
  return runs;
}

function isSet(bitmap: Buffer, bit: number): boolean {
  return ((bitmap[bit >>> 3] as number) & (1 << (bit & 7))) !== 0;
}

function setBit(bitmap: Buffer, bit: number): void {
  bitmap[bit >>> 3] = (bitmap[bit >>> 3] as number) | (1 << (bit & 7));
}

function clearBit(bitmap: Buffer, bit: number): void {
  bitmap[bit >>> 3] = (bitmap[bit >>> 3] as number) & ~(1 << (bit & 7));
}

export async function readAt(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  const count = await readFully(file, bytes, offset);
  if (count < length) throw new Error(`the image that mke2fs made ends at ${offset + count}`);
  return bytes;
}
