// What is mounted where, under every name that a folder can have.
import { execFileSync } from 'node:child_process';
import { mkdir, realpath, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, expect, onTestFinished, test } from 'vitest';
import { fileSystemType, mountedOn, mountOf, mounts, nearestExisting } from '../../src/cli/mounts.js';
import { Host } from '../fixtures/host.js';
import { lacksRoot } from '../fixtures/tools.js';

beforeEach(({ skip }) => {
  const missing = lacksRoot();
  if (missing !== undefined) skip(missing);
});

async function newFolder(): Promise<string> {
  return realpath((await Host.in()).root);
}

async function mount(folder: string, source = 'tmpfs', type = 'tmpfs'): Promise<void> {
  await mkdir(folder, { recursive: true });
  execFileSync('mount', ['-t', type, source, folder], { stdio: 'pipe' });
  onTestFinished(() => void execFileSync('umount', ['--lazy', folder], { stdio: 'pipe' }));
}

test.each(['plain', 'a b', 'tab\tand\nnewline', 'back\\slash', '\\040', 'größe', ' - ', '#', 'a - tmpfs x'])(
  'a folder named %j that something is mounted on is found by its name',
  async (name) => {
    const folder = join(await newFolder(), name);
    await mount(folder, `source of ${name}`);
    const expected = { mountPoint: folder, type: 'tmpfs', source: `source of ${name}`, root: '/' };
    expect(await mountedOn(folder)).toEqual(expected);
    await mkdir(join(folder, 'below'));
    expect(await mountOf(join(folder, 'below'))).toEqual(expected);
    expect(await mountedOn(join(folder, 'below'))).toBeUndefined();
    expect(await mounts()).toContainEqual(expected);
  },
);

test('of several mounts on one folder the last is seen', async () => {
  const folder = await newFolder();
  for (const source of ['first', 'second']) await mount(join(folder, 'm'), source);
  expect(await mountedOn(join(folder, 'm'))).toMatchObject({ source: 'second' });
});

test('a mount that a later one above it hides is not what a path lies on', async () => {
  const folder = join(await newFolder(), 'm');
  await mount(join(folder, 'below'), 'hidden');
  await mount(folder, 'above');
  await mkdir(join(folder, 'below'));
  expect(await mountOf(join(folder, 'below'))).toMatchObject({ source: 'above', mountPoint: folder });
  expect(await mountedOn(join(folder, 'below'))).toBeUndefined();
});

test('a name that begins like another is not below it, and links are followed', async () => {
  const folder = await newFolder();
  await mount(join(folder, 'data'), 'data');
  await mkdir(join(folder, 'data2'));
  expect((await mountOf(join(folder, 'data2')))?.source).not.toBe('data');
  await symlink(join(folder, 'data'), join(folder, 'link'));
  expect(await mountOf(join(folder, 'link'))).toMatchObject({ source: 'data' });
  expect(await mountedOn(join(folder, 'link'))).toMatchObject({ source: 'data' });
  await writeFile(join(folder, 'data/file'), '');
  expect(await fileSystemType(join(folder, 'data/file'))).toBe('tmpfs');
  execFileSync('mkfifo', [join(folder, 'data/pipe')]);
  // A pipe is not opened, which would wait.
  expect(await fileSystemType(join(folder, 'data/pipe'))).toBe('tmpfs');
});

test('every mount has a folder, and the root is on one of them', async () => {
  const all = await mounts();
  expect(all.every(({ mountPoint, type }) => mountPoint.startsWith('/') && type !== '')).toBe(true);
  expect(await mountOf('/')).toMatchObject({ mountPoint: '/' });
  expect(await fileSystemType('/proc')).toBe('proc');
  await expect(mountOf(join(await newFolder(), 'missing'))).rejects.toMatchObject({ code: 'ENOENT' });
});

test('the nearest folder that is there is found, also behind a link to nothing', async () => {
  const folder = await newFolder();
  expect(await nearestExisting(join(folder, 'a/b/c'))).toBe(folder);
  expect(await nearestExisting(folder)).toBe(folder);
  await symlink('nowhere', join(folder, 'link'));
  expect(await nearestExisting(join(folder, 'link/x'))).toBe(folder);
  expect(await nearestExisting('/nonexistent/x')).toBe('/');
  await rm(join(folder, 'link'));
  expect((await stat(folder)).isDirectory()).toBe(true);
});
