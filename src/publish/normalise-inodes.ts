// Making an image that mke2fs made of a tree depend on nothing but the tree: every inode's other times become that of its last
// modification, and its extended attributes are sorted. mke2fs takes them from the tree, where reading sets atime, copying ctime, and each
// filesystem has its own order. For images that make-ext4.ts made: their features are known. Layout: the kernel's Documentation/filesystems/ext4.
import { type FileHandle, open } from 'node:fs/promises';
import { crc32c } from '../image/crc32c.js';
import { sortInodeXattrs } from './inode-xattrs.js';

const SUPERBLOCK_OFFSET = 1024;
const FIRST_ORDINARY_INODE = 11;
const ROOT_INODE = 2;
const GROUP_INODES_UNINIT = 1;

interface Layout {
  readonly blockSize: number;
  readonly inodeSize: number;
  readonly inodesPerGroup: number;
  readonly groups: number;
  readonly descriptorSize: number;
  readonly checksumSeed: number;
}

/** `rootTimeS` is the time of the root folder, which is not of the tree: seconds since the epoch. */
export async function normaliseInodes(path: string, rootTimeS: number): Promise<void> {
  const file = await open(path, 'r+');
  try {
    const layout = await readLayout(file);
    const { blockSize, descriptorSize, groups, inodesPerGroup } = layout;
    const descriptors = await read(file, blockSize, groups * descriptorSize);
    for (let group = 0; group < groups; group++) {
      const descriptor = descriptors.subarray(group * descriptorSize, (group + 1) * descriptorSize);
      const table = usedTable(descriptor, layout);
      if (table.inodes > 0) await normaliseTable(file, layout, table, group * inodesPerGroup + 1, rootTimeS);
    }
  } finally {
    await file.close();
  }
}

async function readLayout(file: FileHandle): Promise<Layout> {
  const bytes = await read(file, SUPERBLOCK_OFFSET, 1024);
  const blocks = bytes.readUInt32LE(0x04) + bytes.readUInt32LE(0x150) * 2 ** 32;
  return {
    blockSize: 1024 << bytes.readUInt32LE(0x18),
    inodeSize: bytes.readUInt16LE(0x58),
    inodesPerGroup: bytes.readUInt32LE(0x28),
    groups: Math.ceil(blocks / bytes.readUInt32LE(0x20)),
    descriptorSize: bytes.readUInt16LE(0xfe),
    checksumSeed: crc32c(0xffff_ffff, bytes.subarray(0x68, 0x78)), // of the UUID
  };
}

/** Inodes at the end of a table that were never used need not be looked at. */
function usedTable(descriptor: Buffer, layout: Layout): { offset: number; inodes: number } {
  const block = descriptor.readUInt32LE(0x08) + descriptor.readUInt32LE(0x28) * 2 ** 32;
  const unused = descriptor.readUInt16LE(0x1c) + descriptor.readUInt16LE(0x32) * 2 ** 16;
  const none = (descriptor.readUInt16LE(0x12) & GROUP_INODES_UNINIT) !== 0;
  return { offset: block * layout.blockSize, inodes: none ? 0 : layout.inodesPerGroup - unused };
}

async function normaliseTable(
  file: FileHandle,
  { inodeSize, checksumSeed }: Layout,
  table: { offset: number; inodes: number },
  firstInode: number,
  rootTimeS: number,
): Promise<void> {
  const bytes = await read(file, table.offset, table.inodes * inodeSize);
  for (let i = 0; i < table.inodes; i++) {
    const number = firstInode + i;
    const inode = bytes.subarray(i * inodeSize, (i + 1) * inodeSize);
    const links = inode.readUInt16LE(0x1a);
    if (links === 0 || (number < FIRST_ORDINARY_INODE && number !== ROOT_INODE)) continue;
    if (number === ROOT_INODE) {
      inode.writeUInt32LE(rootTimeS, 0x10);
      inode.writeUInt32LE(0, 0x88);
    }
    normalise(inode, number, checksumSeed);
  }
  await write(file, table.offset, bytes);
}

function normalise(inode: Buffer, number: number, seed: number): void {
  const [atime, ctime, mtime] = [0x08, 0x0c, 0x10];
  const [ctimeExtra, mtimeExtra, atimeExtra, crtime, crtimeExtra] = [0x84, 0x88, 0x8c, 0x90, 0x94];
  for (const time of [atime, ctime, crtime]) inode.copy(inode, time, mtime, mtime + 4);
  for (const extra of [atimeExtra, ctimeExtra, crtimeExtra])
    inode.copy(inode, extra, mtimeExtra, mtimeExtra + 4);
  sortInodeXattrs(inode);
  const [checksumLow, checksumHigh] = [0x7c, 0x82];
  inode.writeUInt16LE(0, checksumLow);
  inode.writeUInt16LE(0, checksumHigh);
  const name = Buffer.alloc(8);
  name.writeUInt32LE(number, 0);
  inode.copy(name, 4, 0x64, 0x68); // its generation
  const checksum = crc32c(crc32c(seed, name), inode);
  inode.writeUInt16LE(checksum & 0xffff, checksumLow);
  inode.writeUInt16LE(checksum >>> 16, checksumHigh);
}

async function read(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file.read(bytes, done, length - done, offset + done);
    if (bytesRead === 0) throw new Error(`the image ends at ${offset + done}, within its inodes`);
    done += bytesRead;
  }
  return bytes;
}

async function write(file: FileHandle, offset: number, bytes: Buffer): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await file.write(bytes, done, bytes.length - done, offset + done)).bytesWritten;
  }
}
