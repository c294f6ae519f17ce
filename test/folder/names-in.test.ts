// A listing tells every name that stays, whatever goes meanwhile, and the event loop turns meanwhile.
import { mkdir, rename, symlink, writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { namesIn, rawNamesIn, visitNames } from '../../src/folder/names-in.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { turnsDuring } from '../fixtures/turns.js';

const MANY = 3000;

describeEachFilesystem((filesystem) => {
  test('names that stay are told while others go', async () => {
    const { root, registry } = await Host.in(filesystem.path);
    const stay = Array.from({ length: 40 }, (_, i) => `stays-${i}`);
    for (const name of stay) await mkdir(join(root, name));
    const other = join(root, 'other');
    await mkdir(other);
    let isOver = false;
    const comeAndGo = async () => {
      while (!isOver) {
        await mkdir(join(root, 'goes'));
        await rename(join(root, 'goes'), join(other, 'goes'));
        await rename(join(other, 'goes'), join(root, 'goes'));
        await rename(join(root, 'goes'), join(other, `went-${performance.now()}`));
      }
    };
    const going = comeAndGo();
    for (let round = 0; round < 100; round++) {
      const names = new Set(await namesIn(root));
      expect(stay.filter((name) => !names.has(name))).toEqual([]);
    }
    isOver = true;
    await going;
    await registry.close();
  });
});

test('of many names the event loop takes a few at a time', async () => {
  const { root } = await Host.in();
  const names = Array.from({ length: MANY }, (_, i) => `file-${i}`);
  for (const name of names) await writeFile(join(root, name), '');
  const slow = (name: string) => {
    for (const until = performance.now() + 0.02; performance.now() < until; );
    return name.startsWith('file-');
  };
  const { result, turns } = await turnsDuring(() => namesIn(root, slow));
  expect(result.sort()).toEqual(names.sort());
  expect(turns).toBeGreaterThanOrEqual(MANY / 1000);
});

test('names are told in the bytes that they have, and none of a folder that is not there', async () => {
  const { root } = await Host.in();
  const names = ['b', 'é', 'templates'];
  for (const name of names.slice(0, -1)) await writeFile(join(root, name), '');
  expect((await namesIn(root)).sort()).toEqual(names.toSorted());
  expect(await rawNamesIn(root)).toContain('\u00c3\u00a9');
  expect((await namesIn(root, (name) => /^[té]/.test(name))).sort()).toEqual(['templates', 'é']);
  expect(await namesIn(join(root, 'none'))).toEqual([]);
  await expect(namesIn(join(root, 'é', 'x'))).rejects.toMatchObject({ errno: -constants.errno.ENOTDIR });
});

test('folders are told from files, links are followed to the folder, and no more than the limit is read', async () => {
  const { root } = await Host.in();
  await writeFile(join(root, 'file'), '');
  await symlink(root, join(root, 'templates/link'));
  const seen = new Map<string, boolean>();
  const visit = (name: string, mayBeFolder: boolean) => seen.set(name, mayBeFolder);
  await visitNames(Buffer.from(join(root, 'templates/link')), 'utf8', visit);
  expect(Object.fromEntries(seen)).toEqual({ file: false, templates: true });
  seen.clear();
  await visitNames(Buffer.from(root), 'utf8', visit, 1);
  expect(seen.size).toBe(1);
});
