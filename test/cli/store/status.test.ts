// What counts as somebody's data in a store, so that `store rm` keeps it.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { userDataIn } from '../../../src/cli/store/status.js';

async function storeWith(path: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'store-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const file = join(folder, path);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, '');
  return folder;
}

test.each([
  'vm-1/rootfs.ext4',
  '.microvm-rootfs/keep/notes',
  '.microvm-rootfs/snapshots/.wip/notes',
  // Names that begin as ours do.
  '.microvm-rootfs-backup/memory',
  '.microvm-rootfs-snapshots/before/rootfs.ext4',
  '.microvm-rootfs-notes.tmp',
])('%s is data', async (path) => {
  expect(await userDataIn(await storeWith(path))).toHaveLength(1);
});

test.each([
  '.microvm-rootfs/staging/1-a/1',
  '.microvm-rootfs/.microvm-rootfs-scratch-aB3x9Z/probe',
  '.microvm-rootfs/snapshots/.microvm-rootfs/trash/1',
  // What killed commands left.
  '.microvm-rootfs-1f2e3d4c5b6a7988.tmp',
  '.microvm-rootfs-probe-reflink',
])('%s is ours', async (path) => {
  expect(await userDataIn(await storeWith(path))).toEqual([]);
});
