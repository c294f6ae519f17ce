// Lays out extended attributes on disk: in the free space of the inode, or in a separate block. Layout: the kernel's
// Documentation/filesystems/ext4/attributes.rst.
import { crc32c } from '../../image/crc32c.js';
import type { Attribute } from '../tree/file-tree.js';
import { BLOCK_BYTES, INODE, INODE_BYTES } from './layout.js';

const MAGIC = 0xea020000;
const ENTRY_HEAD = 16;
const END_MARK = 4;
const BLOCK_HEADER = 32;
const BLOCK_CHECKSUM = 16;

const IN_INODE_BYTES = INODE_BYTES - INODE.attributes - 4;
const IN_BLOCK_BYTES = BLOCK_BYTES - BLOCK_HEADER;

const PREFIXES: readonly (readonly [prefix: string, index: number])[] = [
  ['user.', 1],
  ['system.posix_acl_access', 2],
  ['system.posix_acl_default', 3],
  ['trusted.', 4],
  ['security.', 6],
  ['system.', 7],
];

interface Entry {
  readonly index: number;
  readonly name: Buffer;
  readonly value: Buffer;
}

/** The attributes of one inode, and where each is stored. */
export interface AttributePlan {
  readonly inInode: readonly Entry[];
  readonly inBlock: readonly Entry[];
}

export const NO_ATTRIBUTES: AttributePlan = { inInode: [], inBlock: [] };

/** Undefined if ext4 has no room for them or does not know the namespace. */
export function planAttributes(attributes: readonly Attribute[]): AttributePlan | undefined {
  if (attributes.length === 0) return NO_ATTRIBUTES;
  const entries: Entry[] = [];
  for (const attribute of attributes) {
    const entry = entryOf(attribute);
    if (entry === undefined) return undefined;
    entries.push(entry);
  }
  // The kernel searches a block in this order.
  entries.sort(
    (a, b) => a.index - b.index || a.name.length - b.name.length || Buffer.compare(a.name, b.name),
  );
  if (needed(entries) <= IN_INODE_BYTES) return { inInode: entries, inBlock: [] };
  if (needed(entries) <= IN_BLOCK_BYTES) return { inInode: [], inBlock: entries };
  const inInode: Entry[] = [];
  const inBlock: Entry[] = [];
  for (const entry of entries)
    (needed([...inInode, entry]) <= IN_INODE_BYTES ? inInode : inBlock).push(entry);
  if (needed(inBlock) <= IN_BLOCK_BYTES) return { inInode, inBlock };
  return fullestInode(entries);
}

/** The inode as full as it gets, which leaves the least to the block: each sum that some of the entries have. */
function fullestInode(entries: readonly Entry[]): AttributePlan | undefined {
  const bySum = new Map<number, readonly Entry[]>([[END_MARK, []]]);
  for (const entry of entries) {
    for (const [sum, chosen] of [...bySum]) {
      const bytes = sum + sizeOf(entry);
      if (bytes <= IN_INODE_BYTES && !bySum.has(bytes)) bySum.set(bytes, [...chosen, entry]);
    }
  }
  const inInode = bySum.get(Math.max(...bySum.keys())) ?? [];
  const inBlock = entries.filter((entry) => !inInode.includes(entry));
  return needed(inBlock) <= IN_BLOCK_BYTES ? { inInode, inBlock } : undefined;
}

/** Writes them into the inode, after its fields. */
export function writeInodeAttributes(inode: Buffer, entries: readonly Entry[]): void {
  if (entries.length === 0) return;
  inode.writeUInt32LE(MAGIC, INODE.attributes);
  // Value offsets count from the first entry.
  writeEntries(inode.subarray(INODE.attributes + 4), entries, 0);
}

export function encodeAttributeBlock(entries: readonly Entry[], block: number, fsSeed: number): Buffer {
  const bytes = Buffer.alloc(BLOCK_BYTES);
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt32LE(1, 4); // inodes that use it
  bytes.writeUInt32LE(1, 8); // blocks
  bytes.writeUInt32LE(writeEntries(bytes, entries, BLOCK_HEADER), 12);
  const number = Buffer.alloc(8);
  number.writeBigUInt64LE(BigInt(block));
  bytes.writeUInt32LE(crc32c(crc32c(fsSeed, number), bytes), BLOCK_CHECKSUM);
  return bytes;
}

/** Writes entries from `start` on and values from the end. Returns the hash of all entries. */
function writeEntries(area: Buffer, entries: readonly Entry[], start: number): number {
  let at = start;
  let end = area.length;
  let hash = 0;
  for (const { index, name, value } of entries) {
    if (value.length > 0) end -= padded(value.length);
    const entryHash = hashOf(name, value);
    area.writeUInt8(name.length, at);
    area.writeUInt8(index, at + 1);
    area.writeUInt16LE(value.length > 0 ? end : 0, at + 2);
    area.writeUInt32LE(value.length, at + 8);
    area.writeUInt32LE(entryHash, at + 12);
    name.copy(area, at + ENTRY_HEAD);
    value.copy(area, end);
    hash = (rotate(hash, 16) ^ entryHash) >>> 0;
    at += ENTRY_HEAD + padded(name.length);
  }
  return hash;
}

/** Same as the kernel's ext4_xattr_hash_entry. */
function hashOf(name: Buffer, value: Buffer): number {
  let hash = 0;
  for (const byte of name) hash = rotate(hash, 5) ^ byte;
  const words = Buffer.alloc(padded(value.length));
  value.copy(words);
  for (let at = 0; at < words.length; at += 4) hash = rotate(hash, 16) ^ words.readUInt32LE(at);
  return hash >>> 0;
}

function rotate(hash: number, bits: number): number {
  return (hash << bits) ^ (hash >>> (32 - bits));
}

function needed(entries: readonly Entry[]): number {
  return entries.reduce((sum, entry) => sum + sizeOf(entry), END_MARK);
}

function sizeOf({ name, value }: Entry): number {
  return ENTRY_HEAD + padded(name.length) + padded(value.length);
}

function padded(length: number): number {
  return Math.ceil(length / 4) * 4;
}

function entryOf({ name, value }: Attribute): Entry | undefined {
  const [prefix, index] = PREFIXES.find(([start]) => name.startsWith(start)) ?? [];
  if (prefix === undefined || index === undefined) return undefined;
  const rest = Buffer.from(name.slice(prefix.length), 'latin1');
  const isAcl = index === 2 || index === 3;
  if (rest.length > 255 || isAcl !== (rest.length === 0)) return undefined;
  return { index, name: rest, value: isAcl ? aclOnDisk(value) : value };
}

// From include/uapi/linux/posix_acl_xattr.h and fs/ext4/acl.h.
const ACL_VERSION_ON_DISK = 1;
const ACL_USER = 0x02;
const ACL_GROUP = 0x08;

/** The kernel's format has an id in every entry. On disk only named users and groups have one. */
function aclOnDisk(acl: Buffer): Buffer {
  const version = Buffer.alloc(4);
  version.writeUInt32LE(ACL_VERSION_ON_DISK);
  const parts: Buffer[] = [version];
  for (let at = 4; at + 8 <= acl.length; at += 8) {
    const tag = acl.readUInt16LE(at);
    parts.push(acl.subarray(at, at + (tag === ACL_USER || tag === ACL_GROUP ? 8 : 4)));
  }
  return Buffer.concat(parts);
}
