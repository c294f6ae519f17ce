// Writes one inode.
import { crc32c } from '../../image/crc32c.js';
import type { TreeNode } from '../tree/file-tree.js';
import type { AttributePlan } from './attribute-area.js';
import { writeInodeAttributes } from './attribute-area.js';
import { EXTENTS_FLAG, INODE, INODE_BYTES, INODE_EXTRA_LENGTH, writeSplit16 } from './layout.js';

/** What the filesystem adds to the file's facts from the tree. */
export interface InodePlace {
  readonly number: number;
  readonly links: number;
  readonly sizeBytes: number;
  /** Blocks used by contents, the extent tree and attributes. */
  readonly blocks: number;
  /** The root of the extent tree, the target of a short link, or the numbers of a device. */
  readonly block: Buffer;
  readonly hasExtents: boolean;
  readonly attributeBlock: number;
}

const TYPE_BITS: Readonly<Record<TreeNode['kind'], number>> = {
  fifo: 0x1000,
  'character device': 0x2000,
  folder: 0x4000,
  'block device': 0x6000,
  file: 0x8000,
  symlink: 0xa000,
  socket: 0xc000,
};

const SECTORS_PER_BLOCK = 8;

/** Two extra bits extend the signed 32-bit seconds to 34 bits: from 1901 to 2446. */
export const EARLIEST_S = -(2n ** 31n);
export const LATEST_S = 2n ** 34n - 2n ** 31n - 1n;

/** Whether ext4 can store the time. */
export function holdsTime(timeNs: bigint): boolean {
  const seconds = floorToSeconds(timeNs);
  return seconds >= EARLIEST_S && seconds <= LATEST_S;
}

/** The time that ext4 has instead of one that it cannot store, as the kernel's. */
export function nearestTime(timeNs: bigint): bigint {
  if (holdsTime(timeNs)) return timeNs;
  return (timeNs < 0n ? EARLIEST_S : LATEST_S) * 1_000_000_000n;
}

export function encodeInode(
  node: TreeNode,
  place: InodePlace,
  attributes: AttributePlan,
  inodeSeed: number,
): Buffer {
  const inode = Buffer.alloc(INODE_BYTES);
  inode.writeUInt16LE(TYPE_BITS[node.kind] | node.mode, INODE.mode);
  writeSplit16(inode, node.uid, INODE.uidLow, INODE.uidHigh);
  writeSplit16(inode, node.gid, INODE.gidLow, INODE.gidHigh);
  inode.writeUInt32LE(place.sizeBytes % 2 ** 32, INODE.sizeLow);
  inode.writeUInt32LE(Math.floor(place.sizeBytes / 2 ** 32), INODE.sizeHigh);
  inode.writeUInt16LE(place.links, INODE.links);
  const sectors = place.blocks * SECTORS_PER_BLOCK;
  inode.writeUInt32LE(sectors % 2 ** 32, INODE.sectorsLow);
  inode.writeUInt16LE(Math.floor(sectors / 2 ** 32), INODE.sectorsHigh);
  inode.writeUInt32LE(place.hasExtents ? EXTENTS_FLAG : 0, INODE.flags);
  place.block.copy(inode, INODE.block);
  inode.writeUInt32LE(place.attributeBlock % 2 ** 32, INODE.attributeBlockLow);
  inode.writeUInt16LE(Math.floor(place.attributeBlock / 2 ** 32), INODE.attributeBlockHigh);
  inode.writeUInt16LE(INODE_EXTRA_LENGTH, INODE.extraLength);
  writeTimes(inode, node.mtimeNs);
  writeInodeAttributes(inode, attributes.inInode);
  writeInodeChecksum(inode, inodeSeed);
  return inode;
}

/** The checksum seed of an inode and its blocks. Generations are 0. */
export function inodeSeedOf(fsSeed: number, number: number): number {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt32LE(number);
  return crc32c(fsSeed, bytes);
}

/** Sets all four times to the modification time, because reading and copying change the others. */
function writeTimes(inode: Buffer, mtimeNs: bigint): void {
  const seconds = floorToSeconds(mtimeNs);
  const low = Number(BigInt.asIntN(32, seconds));
  const epoch = Number((seconds - BigInt(low)) >> 32n) & 3;
  const extra = Number(mtimeNs - seconds * 1_000_000_000n) * 4 + epoch;
  for (const field of [INODE.atime, INODE.ctime, INODE.mtime, INODE.crtime]) inode.writeInt32LE(low, field);
  for (const field of [INODE.atimeExtra, INODE.ctimeExtra, INODE.mtimeExtra, INODE.crtimeExtra])
    inode.writeUInt32LE(extra, field);
}

function floorToSeconds(timeNs: bigint): bigint {
  const seconds = timeNs / 1_000_000_000n;
  return timeNs < 0n && seconds * 1_000_000_000n !== timeNs ? seconds - 1n : seconds;
}

function writeInodeChecksum(inode: Buffer, inodeSeed: number): void {
  writeSplit16(inode, crc32c(inodeSeed, inode), INODE.checksumLow, INODE.checksumHigh);
}
