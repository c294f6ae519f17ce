// A look at a snapshot that others remove, or put another in the place of, in the same instant.
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { inOneFolder } from '../../src/snapshots/one-folder.js';
import { RootfsError } from '../../src/system/errors.js';
import { Host } from '../fixtures/host.js';
import { rejection } from '../fixtures/rejection.js';

async function twoFolders(): Promise<{ path: string; replace: () => Promise<void> }> {
  const { root } = await Host.in();
  const path = join(root, 'snapshot');
  for (const name of ['snapshot', 'next']) {
    await mkdir(join(root, name));
    await writeFile(join(root, name, 'file'), name);
  }
  return {
    path,
    replace: async () => {
      await rename(path, join(root, 'gone'));
      await rename(join(root, 'next'), path);
    },
  };
}

test('what is missing because the folder was replaced meanwhile is looked for again', async () => {
  const { path, replace } = await twoFolders();
  let looks = 0;
  const look = async () => {
    if (++looks > 1) return 'found';
    await replace();
    throw new Error('a file is missing');
  };
  expect(await inOneFolder(path, look)).toBe('found');
  expect(looks).toBe(2);
});

test('what was seen of two folders is undone, and looked at again', async () => {
  const { path, replace } = await twoFolders();
  const undone: number[] = [];
  let looks = 0;
  const look = async () => {
    if (++looks === 1) await replace();
    return looks;
  };
  expect(await inOneFolder(path, look, (seen) => undone.push(seen))).toBe(2);
  expect(undone).toEqual([1]);
});

test('what is missing from a folder that stays is missing', async () => {
  const { path } = await twoFolders();
  let looks = 0;
  const look = async () => {
    looks++;
    throw new Error('a file is missing');
  };
  await expect(inOneFolder(path, look)).rejects.toThrow('a file is missing');
  expect(looks).toBe(1);
});

test('a folder that is replaced at every look does not keep the caller for ever', async () => {
  const { root } = await Host.in();
  const path = join(root, 'snapshot');
  await mkdir(path);
  let looks = 0;
  const look = async () => {
    await writeFile(join(path, `${looks++}`), '');
  };
  await inOneFolder(path, look);
  expect(looks).toBeLessThan(100);
});

test('a folder that came and went within the look is not judged by what was missing in it', async () => {
  const path = join((await Host.in()).root, 'snapshot');
  let looks = 0;
  const look = async () => {
    if (++looks === 1) throw new RootfsError('SNAPSHOT_CORRUPT', 'its manifest is missing');
    throw new RootfsError('SNAPSHOT_NOT_FOUND', 'there is none');
  };
  await rejection(inOneFolder(path, look), 'SNAPSHOT_NOT_FOUND');
  expect(looks).toBe(2);
});
