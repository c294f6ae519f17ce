// Builds the blocks of a folder: entries sorted by name, and a checksum at the end of each block.
import { crc32c } from '../../image/crc32c.js';
import { Pause } from '../../system/pause.js';
import type { TreeNode } from '../tree/file-tree.js';
import { BLOCK_BYTES } from './layout.js';

export interface FolderEntry {
  /** Latin-1. */
  readonly name: string;
  readonly inode: number;
  readonly kind: TreeNode['kind'];
}

const HEAD_BYTES = 8;
const TAIL_BYTES = 12;
const USABLE_BYTES = BLOCK_BYTES - TAIL_BYTES;
const TAIL_MARK = 0xde;

const TYPE: Readonly<Record<TreeNode['kind'], number>> = {
  file: 1,
  folder: 2,
  'character device': 3,
  'block device': 4,
  fifo: 5,
  socket: 6,
  symlink: 7,
};

/** Counts the blocks that a folder needs, name by name, in their order. */
export class FolderSize {
  #blocks = 1;
  #used = 2 * entryLength(1); // `.` and `..`

  add(name: string): void {
    const length = entryLength(name.length);
    if (this.#used + length > USABLE_BYTES) {
      this.#blocks++;
      this.#used = 0;
    }
    this.#used += length;
  }

  get blocks(): number {
    return this.#blocks;
  }
}

export interface EncodedFolder {
  readonly blocks: readonly Buffer[];
  /** How many of the entries are folders. */
  readonly folders: number;
}

/** Returns at least `minimumBlocks` blocks. `inodeSeed` is the checksum seed of the folder's inode. */
export async function encodeFolder(
  entries: Iterable<FolderEntry>,
  inodeSeed: number,
  minimumBlocks: number,
): Promise<EncodedFolder> {
  const pause = new Pause();
  let folders = 0;
  const blocks: Buffer[] = [];
  let block = Buffer.alloc(BLOCK_BYTES);
  let used = 0;
  let last = 0;
  const finish = () => {
    // The last entry extends to the tail. An empty block has one entry without a name.
    block.writeUInt16LE(USABLE_BYTES - last, last + 4);
    block.writeUInt16LE(TAIL_BYTES, USABLE_BYTES + 4);
    block.writeUInt8(TAIL_MARK, USABLE_BYTES + 7);
    block.writeUInt32LE(crc32c(inodeSeed, block.subarray(0, USABLE_BYTES)), USABLE_BYTES + 8);
    blocks.push(block);
    block = Buffer.alloc(BLOCK_BYTES);
    used = 0;
    last = 0;
  };
  for (const { name, inode, kind } of entries) {
    const length = entryLength(name.length);
    if (used + length > USABLE_BYTES) {
      finish();
      if (pause.isDue) await pause.take();
    }
    if (kind === 'folder') folders++;
    block.writeUInt32LE(inode, used);
    block.writeUInt16LE(length, used + 4);
    block.writeUInt8(name.length, used + 6);
    block.writeUInt8(TYPE[kind], used + 7);
    block.write(name, used + HEAD_BYTES, 'latin1');
    last = used;
    used += length;
  }
  finish();
  while (blocks.length < minimumBlocks) finish();
  return { blocks, folders };
}

function entryLength(nameLength: number): number {
  return HEAD_BYTES + Math.ceil(nameLength / 4) * 4;
}
