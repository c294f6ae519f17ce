// Making a folder and those above it: the modes, several at once, and where nothing can be made.
import { execFileSync } from 'node:child_process';
import { chmod, mkdir, readdir, rmdir, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, expect, inject, onTestFinished, test } from 'vitest';
import { makeFolders, makeNewFolder } from '../../src/system/make-folders.js';
import { Host } from '../fixtures/host.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

let root: string;

beforeEach(async () => {
  ({ root } = await Host.in(inject('scratch')));
});

test('the first that was made is told, each has the mode, and what is there stays', async () => {
  const first = join(root, 'a');
  expect(await makeFolders(join(root, 'a/b/c'), 0o700)).toBe(first);
  expect(((await stat(first)).mode & 0o777).toString(8)).toBe('700');
  expect(await makeFolders(join(root, 'a/b/c'))).toBeUndefined();
  expect(await makeFolders(join(root, 'a/b/d'))).toBe(join(root, 'a/b/d'));
});

test('whatever the umask, each that was made has the mode, and what was there keeps its own', async () => {
  await mkdir(join(root, 'there'));
  await chmod(join(root, 'there'), 0o711);
  const umask = process.umask(0o077);
  try {
    await makeFolders(join(root, 'there/a/b/c'), 0o755);
  } finally {
    process.umask(umask);
  }
  const modes = ['there', 'there/a', 'there/a/b', 'there/a/b/c'].map(
    async (path) => (await stat(join(root, path))).mode & 0o777,
  );
  expect(await Promise.all(modes)).toEqual([0o711, 0o755, 0o755, 0o755]);
});

test('many at once make one', async () => {
  const paths = Array.from({ length: 50 }, (_, i) => join(root, `x/y/z/${i % 5}`));
  const made = await Promise.all(paths.map((path) => makeFolders(path)));
  expect(await readdir(join(root, 'x/y/z'))).toHaveLength(5);
  expect(made.filter((path) => path === join(root, 'x'))).not.toEqual([]);
});

test('a file and a dangling link in the way are refused, a link to a folder is not', async () => {
  await writeFile(join(root, 'file'), '');
  await symlink('nowhere', join(root, 'dangling'));
  await mkdir(join(root, 'real'));
  await symlink('real', join(root, 'link'));
  await expect(makeFolders(join(root, 'file'))).rejects.toMatchObject({ code: 'EEXIST' });
  await expect(makeFolders(join(root, 'file/sub'))).rejects.toMatchObject({ code: 'ENOTDIR' });
  await expect(makeFolders(join(root, 'dangling/sub'))).rejects.toMatchObject({ code: 'ENOENT' });
  expect(await makeFolders(join(root, 'link'))).toBeUndefined();
});

test('what is there but cannot be looked at is reported, rather than that something is there', async () => {
  await symlink('loop', join(root, 'loop'));
  await expect(makeFolders(join(root, 'loop'))).rejects.toMatchObject({ code: 'ELOOP' });
});

test('a new folder that cannot have its mode does not stay', async ({ skip }) => {
  const missing = lacksRoot() ?? lacks('bindfs');
  if (missing !== undefined) skip(missing);
  const [source, mounted] = [join(root, 'source'), join(root, 'mounted')];
  for (const path of [source, mounted]) await mkdir(path);
  execFileSync('bindfs', ['--create-with-perms=0500', '--chmod-deny', source, mounted]);
  onTestFinished(() => void execFileSync('umount', [mounted]));
  await expect(makeFolders(join(mounted, 'a/b'), 0o700)).rejects.toMatchObject({ code: 'EPERM' });
  expect(await readdir(source)).toEqual([]);
  await expect(makeNewFolder(join(mounted, 'new-'))).rejects.toMatchObject({ code: 'EPERM' });
  expect(await readdir(source)).toEqual([]);
});

test('where the parent is there, but nothing can be made in it, it fails at once', async ({ skip }) => {
  await expect(makeFolders('/proc/microvm/rootfs')).rejects.toMatchObject({ code: 'ENOENT' });
  const missing = lacksRoot();
  if (missing !== undefined) skip(missing);
  const [source, mounted] = [join(root, 'source'), join(root, 'mounted')];
  for (const path of [source, mounted]) await mkdir(path);
  execFileSync('mount', ['--bind', source, mounted]);
  onTestFinished(() => void execFileSync('umount', [mounted]));
  await rmdir(source);
  await expect(makeFolders(join(mounted, 'a/b'))).rejects.toMatchObject({ code: 'ENOENT' });
});
