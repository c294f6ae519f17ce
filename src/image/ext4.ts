// Reads an ext4 superblock. Layout: the kernel's Documentation/filesystems/ext4/super.rst.
import { crc32c } from './crc32c.js';
import { readBytes } from './read-bytes.js';

export const SUPERBLOCK_OFFSET = 1024;
export const SUPERBLOCK_SIZE = 1024;
const MAGIC = 0xef53;

const STATE_CLEAN = 0x1;
const STATE_ERRORS = 0x2;
const INCOMPAT_RECOVER = 0x4;
const INCOMPAT_JOURNAL_DEV = 0x8;
const INCOMPAT_64BIT = 0x80;
const INCOMPAT_MMP = 0x100;
const COMPAT_HAS_JOURNAL = 0x4;
const COMPAT_SPARSE_SUPER2 = 0x200;
const COMPAT_ORPHAN_FILE = 0x1000;
const RO_COMPAT_BIGALLOC = 0x200;
const RO_COMPAT_METADATA_CSUM = 0x400;
const CHECKSUM_OFFSET = 0x3fc;

export interface Ext4Superblock {
  /** The length of the file system, which can differ from that of its file. */
  readonly sizeBytes: number;
  readonly blockSize: number;
  /** The length of a full block group. */
  readonly groupSizeBytes: number;
  /** How far the file system can grow with its reserved group descriptors. */
  readonly reservedSizeBytes: number;
  /**
   * `resize2fs` asks for `e2fsck` first: the journal must be replayed, or the file system has errors, was not cleanly
   * unmounted, or was mounted since the last check.
   */
  readonly needsCheck: boolean;
  /** The superblock matches its checksum, or has none. A write that failed half-way leaves one that does not match. */
  readonly checksumMatches: boolean;
  /**
   * resize2fs 1.47 makes mistakes that `e2fsck` mends. With bigalloc it counts the clusters of the last group wrong.
   * An orphan file can come out with wrong checksums, and the kernel then refuses to mount the file system. With
   * sparse_super2 the blocks of a backup superblock that moved can stay marked as used.
   */
  readonly needsCheckAfterGrowing: boolean;
  /** It has no files: it is the journal of a file system on another device. */
  readonly isJournal: boolean;
  /** Its journal is on another device. */
  readonly hasOtherJournal: boolean;
  /** Multiple mount protection: whoever opens it for writing waits first for a time that stands in it. */
  readonly hasMmp: boolean;
  /** When it was last mounted or written to, in seconds since the epoch. */
  readonly lastUsedS: number;
}

/**
 * Undefined if there is no ext4 superblock. Reads all of it: a partial read would look like no superblock, and
 * resize2fs would then run on an image that was not checked.
 */
export async function readSuperblock(path: string): Promise<Ext4Superblock | undefined> {
  return parseSuperblock(await superblockBytes(path));
}

/** Whatever bytes the file has where ext4 keeps its superblock. */
export function superblockBytes(path: string): Promise<Buffer> {
  return readBytes(path, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE);
}

export function parseSuperblock(bytes: Buffer): Ext4Superblock | undefined {
  if (bytes.length < SUPERBLOCK_SIZE || bytes.readUInt16LE(0x38) !== MAGIC) return undefined;
  const logBlockSize = bytes.readUInt32LE(0x18);
  if (logBlockSize > 6) return undefined; // 64 KiB is the largest block
  const blockSize = 1024 << logBlockSize;
  const incompat = bytes.readUInt32LE(0x60);
  const is64bit = (incompat & INCOMPAT_64BIT) !== 0;
  const blocks = bytes.readUInt32LE(0x04) + (is64bit ? bytes.readUInt32LE(0x150) * 2 ** 32 : 0);
  const groupSizeBytes = bytes.readUInt32LE(0x20) * blockSize;
  if (blocks === 0 || groupSizeBytes === 0) return undefined;

  const descriptorSize = is64bit ? bytes.readUInt16LE(0xfe) : 32;
  if (is64bit && ![64, 128, 256, 512, 1024].includes(descriptorSize)) return undefined; // the kernel knows no others
  const descriptorsPerBlock = Math.floor(blockSize / descriptorSize);
  const groups = Math.ceil((blocks * blockSize) / groupSizeBytes);
  const descriptorBlocks = Math.ceil(groups / descriptorsPerBlock) + bytes.readUInt16LE(0xce);

  const state = bytes.readUInt16LE(0x3a);
  const lastMount = bytes.readUInt32LE(0x2c);
  const lastCheck = bytes.readUInt32LE(0x40);
  const lastWrite = bytes.readUInt32LE(0x30);
  const journalInode = bytes.readUInt32LE(0xe0);
  return {
    sizeBytes: blocks * blockSize,
    blockSize,
    groupSizeBytes,
    reservedSizeBytes: descriptorBlocks * descriptorsPerBlock * groupSizeBytes,
    needsCheck:
      (incompat & INCOMPAT_RECOVER) !== 0 ||
      (state & STATE_CLEAN) === 0 ||
      (state & STATE_ERRORS) !== 0 ||
      lastMount > lastCheck,
    checksumMatches:
      (bytes.readUInt32LE(0x64) & RO_COMPAT_METADATA_CSUM) === 0 ||
      bytes.readUInt32LE(CHECKSUM_OFFSET) === crc32c(0xffff_ffff, bytes.subarray(0, CHECKSUM_OFFSET)),
    needsCheckAfterGrowing:
      (bytes.readUInt32LE(0x64) & RO_COMPAT_BIGALLOC) !== 0 ||
      (bytes.readUInt32LE(0x5c) & (COMPAT_ORPHAN_FILE | COMPAT_SPARSE_SUPER2)) !== 0,
    isJournal: (incompat & INCOMPAT_JOURNAL_DEV) !== 0,
    hasOtherJournal: (bytes.readUInt32LE(0x5c) & COMPAT_HAS_JOURNAL) !== 0 && journalInode === 0,
    hasMmp: (incompat & INCOMPAT_MMP) !== 0,
    lastUsedS: Math.max(lastMount, lastWrite),
  };
}
