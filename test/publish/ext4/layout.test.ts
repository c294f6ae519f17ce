// Offsets on disk, compared with what dumpe2fs reads, and numbers that are split over two fields.
import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import {
  BLOCK_BYTES,
  DESCRIPTOR,
  readSplit16,
  readSplit32,
  SUPERBLOCK,
  writeSplit16,
  writeSplit32,
} from '../../../src/publish/ext4/layout.js';
import { run } from '../../fixtures/images.js';
import { Random } from '../../fixtures/random.js';
import { lacks } from '../../fixtures/tools.js';
import { folderOf, imageOf } from '../../fixtures/tree-images.js';

test('superblock and descriptors are where dumpe2fs reads them', async ({ skip }) => {
  const missing = lacks('mke2fs', 'dumpe2fs');
  if (missing !== undefined) skip(missing);
  const image = await imageOf(folderOf());
  const { stdout } = await run('dumpe2fs', [image]);
  const told = (label: string) => Number(new RegExp(`^${label}:\\s+(\\d+)`, 'm').exec(stdout)?.[1]);
  const bytes = await readFile(image);
  const superblock = bytes.subarray(SUPERBLOCK.offset, SUPERBLOCK.offset + SUPERBLOCK.length);
  expect(readSplit32(superblock, SUPERBLOCK.blocksLow, SUPERBLOCK.blocksHigh)).toBe(told('Block count'));
  expect(readSplit32(superblock, SUPERBLOCK.freeBlocksLow, SUPERBLOCK.freeBlocksHigh)).toBe(
    told('Free blocks'),
  );
  expect(superblock.readUInt32LE(SUPERBLOCK.freeInodes)).toBe(told('Free inodes'));
  expect(superblock.readUInt32LE(SUPERBLOCK.blocksPerGroup)).toBe(told('Blocks per group'));
  expect(superblock.readUInt32LE(SUPERBLOCK.inodesPerGroup)).toBe(told('Inodes per group'));
  expect(superblock.readUInt16LE(SUPERBLOCK.reservedDescriptorBlocks)).toBe(told('Reserved GDT blocks'));
  const uuid = superblock.toString('hex', SUPERBLOCK.uuid, SUPERBLOCK.uuid + SUPERBLOCK.uuidLength);
  expect(stdout.replaceAll('-', '')).toContain(uuid);
  const checksum = superblock.readUInt32LE(SUPERBLOCK.checksum).toString(16).padStart(8, '0');
  expect(stdout).toMatch(new RegExp(`^Checksum:\\s+0x${checksum}$`, 'm'));

  const group = stdout.slice(stdout.indexOf('Group 0:'), stdout.indexOf('Group 1:'));
  const at = (words: string) => Number(new RegExp(`${words} at (\\d+)`).exec(group)?.[1]);
  const descriptor = bytes.subarray(BLOCK_BYTES, BLOCK_BYTES + DESCRIPTOR.length);
  const split32 = (low: number, high: number) => readSplit32(descriptor, low, high);
  expect(split32(DESCRIPTOR.blockBitmapLow, DESCRIPTOR.blockBitmapHigh)).toBe(at('Block bitmap'));
  expect(split32(DESCRIPTOR.inodeBitmapLow, DESCRIPTOR.inodeBitmapHigh)).toBe(at('Inode bitmap'));
  expect(split32(DESCRIPTOR.inodeTableLow, DESCRIPTOR.inodeTableHigh)).toBe(at('Inode table'));
  const [, blocks, inodes, folders] =
    /(\d+) free blocks, (\d+) free inodes, (\d+) directories/.exec(group) ?? [];
  const split16 = (low: number, high: number) => readSplit16(descriptor, low, high);
  expect(split16(DESCRIPTOR.freeBlocksLow, DESCRIPTOR.freeBlocksHigh)).toBe(Number(blocks));
  expect(split16(DESCRIPTOR.freeInodesLow, DESCRIPTOR.freeInodesHigh)).toBe(Number(inodes));
  expect(split16(DESCRIPTOR.usedFoldersLow, DESCRIPTOR.usedFoldersHigh)).toBe(Number(folders));
});

test('a number that is split is read back, and touches no other byte', () => {
  const random = new Random(61);
  const edges = [0, 1, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
  for (let i = 0; i < 300; i++) {
    const bytes = Buffer.alloc(16, 0xaa);
    const small = edges[i] ?? random.below(2 ** 32);
    writeSplit16(bytes, small, 2, 12);
    expect(readSplit16(bytes, 2, 12)).toBe(small);
    expect([0, 1, 4, 11, 14, 15].every((at) => bytes[at] === 0xaa)).toBe(true);
    const large = small * 2 ** 21 + random.below(2 ** 21);
    writeSplit32(bytes, large, 0, 8);
    expect(readSplit32(bytes, 0, 8)).toBe(large);
  }
});
