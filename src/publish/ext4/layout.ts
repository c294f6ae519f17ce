// Defines ext4's on-disk offsets and constants, for filesystems made by make-ext4.ts: 64-bit, with checksums and
// extents. Source: the kernel's Documentation/filesystems/ext4.

export const BLOCK_BYTES = 4096;
export const INODE_BYTES = 256;

export const ROOT_INODE = 2;
export const LOST_AND_FOUND_INODE = 11;
export const FIRST_FREE_INODE = 12;

/** The maximum of an inode's 16-bit link count: the kernel's EXT4_LINK_MAX. */
export const LINK_LIMIT = 65_000;

export const SUPERBLOCK = {
  offset: 1024,
  length: 1024,
  blocksLow: 0x04,
  freeBlocksLow: 0x0c,
  freeInodes: 0x10,
  blocksPerGroup: 0x20,
  inodesPerGroup: 0x28,
  groupNumber: 0x5a,
  uuid: 0x68,
  uuidLength: 16,
  reservedDescriptorBlocks: 0xce,
  blocksHigh: 0x150,
  freeBlocksHigh: 0x158,
  writtenKiB: 0x178,
  checksum: 0x3fc,
} as const;

export const DESCRIPTOR = {
  length: 64,
  blockBitmapLow: 0x00,
  inodeBitmapLow: 0x04,
  inodeTableLow: 0x08,
  freeBlocksLow: 0x0c,
  freeInodesLow: 0x0e,
  usedFoldersLow: 0x10,
  flags: 0x12,
  blockBitmapChecksumLow: 0x18,
  inodeBitmapChecksumLow: 0x1a,
  unusedInodesLow: 0x1c,
  checksum: 0x1e,
  blockBitmapHigh: 0x20,
  inodeBitmapHigh: 0x24,
  inodeTableHigh: 0x28,
  freeBlocksHigh: 0x2c,
  freeInodesHigh: 0x2e,
  usedFoldersHigh: 0x30,
  unusedInodesHigh: 0x32,
  blockBitmapChecksumHigh: 0x38,
  inodeBitmapChecksumHigh: 0x3a,
} as const;

/** The group's inode bitmap, or block bitmap, has not been written yet. */
export const INODES_UNINITIALISED = 1;
export const BLOCKS_UNINITIALISED = 2;

export const INODE = {
  mode: 0x00,
  uidLow: 0x02,
  sizeLow: 0x04,
  atime: 0x08,
  ctime: 0x0c,
  mtime: 0x10,
  gidLow: 0x18,
  links: 0x1a,
  sectorsLow: 0x1c,
  flags: 0x20,
  block: 0x28,
  blockLength: 60,
  generation: 0x64,
  attributeBlockLow: 0x68,
  sizeHigh: 0x6c,
  sectorsHigh: 0x74,
  attributeBlockHigh: 0x76,
  uidHigh: 0x78,
  gidHigh: 0x7a,
  checksumLow: 0x7c,
  extraLength: 0x80,
  checksumHigh: 0x82,
  ctimeExtra: 0x84,
  mtimeExtra: 0x88,
  atimeExtra: 0x8c,
  crtime: 0x90,
  crtimeExtra: 0x94,
  /** Attributes follow the fields. */
  attributes: 0xa0,
} as const;

/** Length of the fields after the first 128 bytes. */
export const INODE_EXTRA_LENGTH = INODE.attributes - 128;

/** Extents map the contents. */
export const EXTENTS_FLAG = 0x8_0000;

/** Low 32 bits first: `low` and `high` are offsets of 32-bit words. */
export function readSplit32(bytes: Buffer, low: number, high: number): number {
  return bytes.readUInt32LE(low) + bytes.readUInt32LE(high) * 2 ** 32;
}

/** `low` and `high` are offsets of 16-bit words. */
export function readSplit16(bytes: Buffer, low: number, high: number): number {
  return bytes.readUInt16LE(low) + bytes.readUInt16LE(high) * 2 ** 16;
}

export function writeSplit32(bytes: Buffer, value: number, low: number, high: number): void {
  bytes.writeUInt32LE(value % 2 ** 32, low);
  bytes.writeUInt32LE(Math.floor(value / 2 ** 32), high);
}

export function writeSplit16(bytes: Buffer, value: number, low: number, high: number): void {
  bytes.writeUInt16LE(value & 0xffff, low);
  bytes.writeUInt16LE(Math.floor(value / 2 ** 16), high);
}
