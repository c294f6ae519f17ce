// Maps a file's blocks to filesystem blocks: up to four extents in the inode, more in a tree of blocks.
import { setImmediate as nextTurn } from 'node:timers/promises';
import { crc32c } from '../../image/crc32c.js';
import { BLOCK_BYTES, INODE } from './layout.js';

/** `count` blocks of a file, starting at `logical`, are stored at `physical`. */
export interface Extent {
  readonly logical: number;
  readonly physical: number;
  readonly count: number;
}

const MAGIC = 0xf30a;
const ENTRY_BYTES = 12;
const IN_INODE = (INODE.blockLength - ENTRY_BYTES) / ENTRY_BYTES;
// The header takes the space of one entry. A four-byte checksum follows the last entry.
const IN_BLOCK = Math.floor((BLOCK_BYTES - ENTRY_BYTES - 4) / ENTRY_BYTES);

/** The most blocks that one extent can hold. */
export const EXTENT_BLOCKS_LIMIT = 32_768;

/** A block of entries of the level below. */
interface Index {
  readonly logical: number;
  readonly physical: number;
}

/** How many blocks of a tree to encode before yielding to the event loop: about a millisecond. */
const SLICE = 32;

interface ExtentTree {
  /** The 60 bytes in the inode. */
  readonly root: Buffer;
  /** Blocks of the tree itself. */
  readonly blocks: readonly { readonly block: number; readonly bytes: Buffer }[];
}

/** The number of blocks that a tree with this many extents needs outside the inode. */
export function treeBlocks(extents: number): number {
  let blocks = 0;
  for (let entries = extents; entries > IN_INODE; ) {
    entries = Math.ceil(entries / IN_BLOCK);
    blocks += entries;
  }
  return blocks;
}

/** `inodeSeed` is the checksum seed of the inode. `allocate` returns one block. */
export async function encodeExtents(
  extents: readonly Extent[],
  inodeSeed: number,
  allocate: () => Promise<number>,
): Promise<ExtentTree> {
  const blocks: { block: number; bytes: Buffer }[] = [];
  let entries: readonly (Extent | Index)[] = extents;
  let depth = 0;
  for (; entries.length > IN_INODE; depth++) {
    const above: Index[] = [];
    for (let i = 0; i < entries.length; i += IN_BLOCK) {
      const part = entries.slice(i, i + IN_BLOCK);
      const block = await allocate();
      const bytes = encodeLevel(part, IN_BLOCK, depth, BLOCK_BYTES);
      const checksumAt = ENTRY_BYTES * (IN_BLOCK + 1);
      bytes.writeUInt32LE(crc32c(inodeSeed, bytes.subarray(0, checksumAt)), checksumAt);
      blocks.push({ block, bytes });
      above.push({ logical: (part[0] as Index).logical, physical: block });
      if (blocks.length % SLICE === 0) await nextTurn();
    }
    entries = above;
  }
  return { root: encodeLevel(entries, IN_INODE, depth, INODE.blockLength), blocks };
}

/** The extents in an inode whose tree has no separate blocks. */
export function readInodeExtents(inode: Buffer): Extent[] {
  const root = inode.subarray(INODE.block, INODE.block + INODE.blockLength);
  if (root.readUInt16LE(0) !== MAGIC || root.readUInt16LE(6) !== 0)
    throw new Error('an inode that mke2fs made has no extents in it');
  return Array.from({ length: root.readUInt16LE(2) }, (_, i) => {
    const entry = root.subarray(ENTRY_BYTES * (i + 1));
    return {
      logical: entry.readUInt32LE(0),
      count: entry.readUInt16LE(4),
      physical: entry.readUInt16LE(6) * 2 ** 32 + entry.readUInt32LE(8),
    };
  });
}

/** Written in place: a buffer for each of a million entries would hold the event loop for seconds. */
function encodeLevel(
  entries: readonly (Extent | Index)[],
  limit: number,
  depth: number,
  length: number,
): Buffer {
  const bytes = Buffer.alloc(length);
  bytes.writeUInt16LE(MAGIC, 0);
  bytes.writeUInt16LE(entries.length, 2);
  bytes.writeUInt16LE(limit, 4);
  bytes.writeUInt16LE(depth, 6);
  let at = ENTRY_BYTES;
  for (const entry of entries) {
    if ('count' in entry) writeExtent(bytes, at, entry);
    else writeIndex(bytes, at, entry);
    at += ENTRY_BYTES;
  }
  return bytes;
}

function writeExtent(bytes: Buffer, at: number, { logical, physical, count }: Extent): void {
  bytes.writeUInt32LE(logical, at);
  bytes.writeUInt16LE(count, at + 4);
  bytes.writeUInt16LE(Math.floor(physical / 2 ** 32), at + 6);
  bytes.writeUInt32LE(physical % 2 ** 32, at + 8);
}

function writeIndex(bytes: Buffer, at: number, { logical, physical }: Index): void {
  bytes.writeUInt32LE(logical, at);
  bytes.writeUInt32LE(physical % 2 ** 32, at + 4);
  bytes.writeUInt16LE(Math.floor(physical / 2 ** 32), at + 8);
}
