import { open, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { parseSuperblock, readSuperblock } from '../../src/image/ext4.js';
import { Host } from '../fixtures/host.js';
import { dumpSuperblock, GiB, KiB, MiB, makeExt4Image, run } from '../fixtures/images.js';

async function imageOf(sizeBytes: number, args: readonly string[] = []): Promise<string> {
  const host = await Host.in();
  const path = join(host.root, 'image.ext4');
  await makeExt4Image(path, sizeBytes, args);
  return path;
}

test.each([
  [4 * MiB, ['-b', '1024']],
  [4 * MiB, ['-b', '4096']],
  [16 * MiB, []],
  [GiB, []],
  [64 * MiB, ['-O', '64bit']],
  [64 * MiB, ['-O', '^64bit']],
])('reads of an image of %i bytes made with %j what dumpe2fs reads', async (sizeBytes, args) => {
  const path = await imageOf(sizeBytes, args);
  const { blockCount, blockSize } = await dumpSuperblock(path);
  expect(await readSuperblock(path)).toMatchObject({
    sizeBytes: blockCount * blockSize,
    blockSize,
    groupSizeBytes: blockSize * blockSize * 8,
    needsCheck: false,
  });
});

test('more than 2^32 blocks are counted in full', async () => {
  const host = await Host.in();
  const path = join(host.root, 'image.ext4');
  await makeExt4Image(path, 16 * MiB, ['-O', '64bit', '-b', '1024']);
  const block = await superblockOf(path);
  block.writeUInt32LE(3, 0x150);
  expect(parseSuperblock(block)?.sizeBytes).toBe((3 * 2 ** 32 + 16 * KiB) * KiB);
});

test('the high half of the block count means nothing without the 64bit feature', async () => {
  const block = await superblockOf(await imageOf(16 * MiB, ['-O', '^64bit', '-b', '1024']));
  block.writeUInt32LE(3, 0x150);
  expect(parseSuperblock(block)?.sizeBytes).toBe(16 * MiB);
});

test('the filesystem has its own length, whatever the file is', async () => {
  const path = await imageOf(16 * MiB);
  await truncate(path, 32 * MiB);
  expect((await readSuperblock(path))?.sizeBytes).toBe(16 * MiB);
  await truncate(path, 8 * MiB);
  expect((await readSuperblock(path))?.sizeBytes).toBe(16 * MiB);
});

test.each([
  ['not cleanly unmounted', 'ssv state 0'],
  ['with errors', 'ssv state 3'],
  ['with a journal to replay', 'feature needs_recovery'],
  ['mounted since the last check', 'ssv mtime 20380101'],
])('needs a check: %s', async (_what, command) => {
  const path = await imageOf(16 * MiB, ['-j']);
  expect((await readSuperblock(path))?.needsCheck).toBe(false);
  await run('debugfs', ['-w', '-R', command, path]);
  expect((await readSuperblock(path))?.needsCheck).toBe(true);
});

test('how far it can grow with the group descriptors that were reserved', async () => {
  const superblock = await readSuperblock(await imageOf(16 * MiB, ['-b', '4096', '-E', 'resize=25600']));
  // 100 MiB was asked for: one group of 128 MiB, and a block of descriptors has room for 64 of 64 bytes.
  expect(superblock?.reservedSizeBytes).toBeGreaterThanOrEqual(100 * MiB);
});

test.each([
  ['an empty file', 0],
  ['a file that ends before its superblock', 1024],
  ['a file that ends in its superblock', 1536],
])('no superblock: %s', async (_what, length) => {
  const path = await imageOf(4 * MiB);
  await truncate(path, length);
  expect(await readSuperblock(path)).toBeUndefined();
});

test('no superblock: other bytes', async () => {
  const host = await Host.in();
  const path = join(host.root, 'other');
  await writeFile(path, Buffer.alloc(4096, 0x53));
  expect(await readSuperblock(path)).toBeUndefined();
});

test.each([
  ['a block size that does not exist', 0x18, 99],
  ['no blocks in a group', 0x20, 0],
])('no superblock: %s', async (_what, offset, value) => {
  const block = await superblockOf(await imageOf(4 * MiB));
  block.writeUInt32LE(value, offset);
  expect(parseSuperblock(block)).toBeUndefined();
});

async function superblockOf(path: string): Promise<Buffer> {
  const file = await open(path, 'r');
  try {
    const block = Buffer.alloc(1024);
    await file.read(block, 0, 1024, 1024);
    return block;
  } finally {
    await file.close();
  }
}
