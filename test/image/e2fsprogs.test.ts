// The check of an image that is to serve many clones.
import { chmod, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, inject, test } from 'vitest';
import { checkFilesystemClean } from '../../src/image/e2fsprogs.js';
import { MiB, run } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks } from '../fixtures/tools.js';

const SIZE = 64 * MiB;

let folder: string;
let image: string;

beforeEach(async ({ skip }) => {
  const missing = lacks('mke2fs', 'e2fsck', 'debugfs');
  if (missing !== undefined) skip(missing);
  folder = await mkdtemp(join(inject('scratch'), 'check-'));
  image = join(folder, 'image');
  await run('mke2fs', ['-q', '-F', '-t', 'ext4', image, `${SIZE / 1024}k`]);
});

describe.each([
  ['trees', {}],
  ['arrays', { sizeBytes: SIZE }],
])('bitmaps in %s', (_, options) => {
  test('a clean file system passes', async () => {
    await checkFilesystemClean(image, 'e2fsck', undefined, options);
  });

  const DAMAGE: [string, string, string][] = [
    ['an inode in use that its bitmap calls free', 'freei <2>', 'Inode bitmap differences'],
    ['an inode free that its bitmap calls used', 'seti <100>', 'Inode bitmap differences'],
    ['blocks free that their bitmap calls used', 'setb 60000 9', 'Block bitmap differences'],
    ['blocks in use that their bitmap calls free', 'freeb 1 3', 'Block bitmap differences'],
    ['a wrong count of links', 'sif <2> links_count 9', 'Inode 2 ref count'],
  ];
  test.each(DAMAGE)('%s is found', async (_damage, command, finding) => {
    await run('debugfs', ['-w', '-R', command, image]);
    const before = await readFile(image);
    const error = await rejection(checkFilesystemClean(image, 'e2fsck', undefined, options), 'E2FSCK_FAILED');
    expect(error.message).toContain(finding);
    expect((await readFile(image)).equals(before)).toBe(true);
  });
});

test('arrays are asked for where they are small, and a program that reads no settings is no failure', async () => {
  const program = join(folder, 'e2fsck');
  const said = join(folder, 'said');
  for (const [reads, expected] of [
    [`cat "$E2FSCK_CONFIG" > ${said}`, '[bitmaps]\ninode_used_map = 1\nfs_bitmaps = 1\n'],
    [`echo none > ${said}`, 'none\n'],
  ] as const) {
    await writeFile(program, `#!/bin/sh\n${reads}\n`);
    await chmod(program, 0o755);
    await checkFilesystemClean(image, program, undefined, { sizeBytes: SIZE });
    expect(await readFile(said, 'utf8')).toBe(expected);
  }
  await writeFile(program, `#!/bin/sh\necho "$E2FSCK_CONFIG" > ${said}\n`);
  for (const options of [{}, { sizeBytes: 2 ** 40 }]) {
    await checkFilesystemClean(image, program, undefined, options);
    expect(await readFile(said, 'utf8')).toBe('/dev/null\n');
  }
});
