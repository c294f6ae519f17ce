// The allocator, in empty file systems of mke2fs: it gives out what e2fsprogs calls free, each block once, and keeps
// the books that e2fsprogs checks.
import { type FileHandle, open } from 'node:fs/promises';
import { beforeEach, expect, onTestFinished, test } from 'vitest';
import { FilesystemFull, Groups, type Run } from '../../../src/publish/ext4/groups.js';
import { BLOCK_BYTES } from '../../../src/publish/ext4/layout.js';
import { Host } from '../../fixtures/host.js';
import { faultsOf, MiB, run } from '../../fixtures/images.js';
import { Random } from '../../fixtures/random.js';
import { lacks } from '../../fixtures/tools.js';

beforeEach(({ skip }) => {
  const missing = lacks('mke2fs', 'dumpe2fs', 'e2fsck');
  if (missing !== undefined) skip(missing);
});

const FEATURES =
  'none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,' +
  'large_file,metadata_csum';

async function emptyFilesystem(
  megabytes: number,
  ...options: string[]
): Promise<{ image: string; file: FileHandle; groups: Groups }> {
  const image = `${(await Host.in()).root}/image`;
  const args = ['-q', '-F', '-b', '4096', '-I', '256', '-m', '0', '-O', FEATURES, '-E', 'lazy_itable_init=0'];
  await run('mke2fs', [...args, ...options, image, `${megabytes}M`]);
  const file = await open(image, 'r+');
  onTestFinished(() => file.close());
  return { image, file, groups: await Groups.read(file) };
}

/** Blocks that dumpe2fs lists as free. */
async function freeBlocks(image: string): Promise<number[]> {
  const { stdout } = await run('dumpe2fs', [image]);
  return [...stdout.matchAll(/^ {2}Free blocks: (.*)$/gm)].flatMap(([, list = '']) =>
    list
      .split(', ')
      .filter((range) => range !== '')
      .flatMap((range) => {
        const [first = 0, last = first] = range.split('-').map(Number);
        return Array.from({ length: last - first + 1 }, (_, i) => first + i);
      }),
  );
}

/** What e2fsck says of faults. */
function saidOf(image: string): Promise<string> {
  return run('e2fsck', ['-fn', image]).then(
    () => '',
    (error: { stdout: string; stderr: string }) => error.stdout + error.stderr,
  );
}

const blocksOf = (runs: readonly Run[]) =>
  runs.flatMap(({ start, count }) => Array.from({ length: count }, (_, i) => start + i));

test.each([
  ['one group', 100],
  ['a last group of a few blocks', 257],
  ['twelve groups, some with copies of the superblock', 1500],
])('in %s, every free block is given once, in order, and then there is none', async (_, megabytes) => {
  const { image, file, groups } = await emptyFilesystem(megabytes);
  const free = await freeBlocks(image);
  expect(groups.freeBlocks).toBe(free.length);
  const random = new Random(megabytes);
  const taken: number[] = [];
  while (taken.length < free.length) {
    const count = Math.min(free.length - taken.length, 1 + random.below(random.pick([3, 100, 40_000])));
    const runs = await groups.allocate(count);
    expect(runs.reduce((sum, each) => sum + each.count, 0)).toBe(count);
    for (const block of blocksOf(runs)) taken.push(block);
  }
  expect(taken.every((block, i) => block === free[i])).toBe(true);
  expect(await groups.allocate(0)).toEqual([]);
  await expect(groups.allocate(1)).rejects.toBeInstanceOf(FilesystemFull);

  await groups.finish(11, [2]);
  await file.sync();
  expect(await freeBlocks(image)).toEqual([]);
  const { stdout } = await run('dumpe2fs', ['-h', image]);
  expect(stdout).toMatch(/^Free blocks:\s+0$/m);
});

test('the books are right: e2fsck finds blocks that no file has, and no wrong sum', async () => {
  const { image, file, groups } = await emptyFilesystem(400);
  const before = await freeBlocks(image);
  const runs = await groups.allocate(40_000);
  await groups.finish(11, [2]);
  await file.sync();
  const given = new Set(blocksOf(runs));
  expect(given.size).toBe(40_000);
  expect(await freeBlocks(image)).toEqual(before.filter((block) => !given.has(block)));
  const faults = await saidOf(image);
  expect(faults).toContain('Block bitmap differences');
  expect(faults).not.toMatch(/checksum|corrupt|invalid|superblock/i);
});

test('bitmaps are full behind the last block of their group, where many inodes leave it fewer blocks', async () => {
  const { image, file, groups } = await emptyFilesystem(300, '-N', '300000');
  const { stdout } = await run('dumpe2fs', ['-h', image]);
  expect(Number(/^Blocks per group:\s+(\d+)$/m.exec(stdout)?.[1])).toBeLessThan(32_768);
  await groups.allocate(groups.freeBlocks);
  await groups.finish(11, [2]);
  await file.sync();
  const said = await saidOf(image);
  expect(said).toContain('Block bitmap differences');
  expect(said).not.toContain('Padding');
});

test('nothing allocated leaves a file system that e2fsck finds nothing wrong with', async () => {
  const { image, file, groups } = await emptyFilesystem(1500);
  expect(groups.inodes % groups.inodesPerGroup).toBe(0);
  await groups.finish(11, [2]);
  await file.sync();
  expect(await faultsOf(image)).toBe('');
  // The copies of the superblock are good too.
  const { stdout } = await run('dumpe2fs', [
    '-h',
    '-o',
    'superblock=32768',
    '-o',
    `blocksize=${BLOCK_BYTES}`,
    image,
  ]);
  expect(stdout).toContain(`Block count:              ${(1500 * MiB) / BLOCK_BYTES}`);
});
