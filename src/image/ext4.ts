// What an ext4 superblock tells. Layout: the kernel's Documentation/filesystems/ext4/super.rst.
import { crc32c } from './crc32c.js';
import { readBytes } from './read-bytes.js';

const SUPERBLOCK_OFFSET = 1024;
const SUPERBLOCK_SIZE = 1024;
const MAGIC = 0xef53;

const STATE_CLEAN = 0x1;
const STATE_ERRORS = 0x2;
const INCOMPAT_RECOVER = 0x4;
const INCOMPAT_64BIT = 0x80;
const RO_COMPAT_METADATA_CSUM = 0x400;
const CHECKSUM_OFFSET = 0x3fc;

export interface Ext4Superblock {
  /** The length of the filesystem, which can differ from that of its file. */
  readonly sizeBytes: number;
  readonly blockSize: number;
  /** The length of a full block group. */
  readonly groupSizeBytes: number;
  /** Up to here the filesystem can grow with the group descriptors that it has room for. */
  readonly reservedSizeBytes: number;
  /** Its journal must be replayed, it was not cleanly unmounted, has errors, or was mounted since the last check: `resize2fs` wants `e2fsck` first. */
  readonly needsCheck: boolean;
  /** The superblock is what its checksum says, or has none. A write of it that failed half-way leaves one that is not. */
  readonly checksumMatches: boolean;
  /** When it was last mounted or written to, whichever is later: seconds since the epoch. */
  readonly lastUsedS: number;
}

/**
 * Undefined if there is no ext4 superblock. All of it is read: a part would look like none, and then resize2fs would be let loose on an image that was
 * not checked.
 */
export async function readSuperblock(path: string): Promise<Ext4Superblock | undefined> {
  return parseSuperblock(await readBytes(path, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE));
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
    lastUsedS: Math.max(lastMount, lastWrite),
  };
}
