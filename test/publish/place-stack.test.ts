// The step by which a stack appears: into a name that is free, taken, taken meanwhile, or on another file system.
import { execFileSync } from 'node:child_process';
import { mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { type NativeLockedSlot, native } from '../../src/addon/native.js';
import { ManagedFolder } from '../../src/folder/managed-folder.js';
import { INCOMING, placeStack, requireStackFolder } from '../../src/publish/place-stack.js';
import { Task } from '../../src/system/task.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { exists, snapshot } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { mountTmpfs } from '../fixtures/mounts.js';
import { rejection } from '../fixtures/rejection.js';
import { lacksRoot } from '../fixtures/tools.js';

const config = (digit: string) => `rootfs.ext4.${digit.repeat(64)}.json`;

async function catalogIn(folder?: string) {
  const { templateDir } = await Host.in(folder);
  const managed = new ManagedFolder(templateDir);
  onTestFinished(() => managed.close());
  const stackFolder = join(templateDir, 'web');
  const image = join(stackFolder, 'rootfs.ext4');
  /** `digit` is of the digest in the name of its config. */
  const place = (content: string | Buffer, replace = false, digit?: string, signal?: AbortSignal) =>
    managed.inWorkFolder('publish', async (work, { handle }) => {
      const staged = join(work, 'stack');
      await mkdir(staged);
      await writeFile(join(staged, 'rootfs.ext4'), content, { mode: 0o444 });
      if (digit !== undefined) await writeFile(join(staged, config(digit)), content, { mode: 0o444 });
      return placeStack(new Task('a test', signal), handle, { staged, stackFolder, name: 'web' }, replace);
    });
  return { managed, stackFolder, image, place };
}

describeEachFilesystem((filesystem) => {
  test('a stack is new, kept or replaced: what lies beside it stays, an old config goes', async () => {
    const { stackFolder, image, place } = await catalogIn(filesystem.path);
    expect(await place('first', false, 'a')).toBe(false);
    await writeFile(join(stackFolder, 'notes'), 'ours');
    const before = await snapshot(stackFolder);
    expect(await rejection(place('second', false, 'b'), 'STACK_EXISTS')).toMatchObject({ path: image });
    expect(await snapshot(stackFolder)).toEqual(before);
    expect(await place('third', true, 'c')).toBe(true);
    expect((await readdir(stackFolder)).sort()).toEqual(['notes', 'rootfs.ext4', config('c')].sort());
    expect(await place('fourth', true)).toBe(true);
    expect((await readdir(stackFolder)).sort()).toEqual(['notes', 'rootfs.ext4']);
    expect(await readFile(image, 'utf8')).toBe('fourth');
  });

  test('a folder without an image is no stack yet; files and links of the name are refused', async () => {
    const { stackFolder, image, place } = await catalogIn(filesystem.path);
    await mkdir(stackFolder);
    await requireStackFolder(stackFolder);
    expect(await place('first')).toBe(false);
    await rm(image);
    await writeFile(join(stackFolder, 'notes'), '');
    expect(await place('second')).toBe(false);
    await rm(stackFolder, { recursive: true });
    await requireStackFolder(stackFolder);
    for (const make of [() => writeFile(stackFolder, 'file'), () => symlink('nowhere', stackFolder)]) {
      await make();
      const before = await snapshot(join(stackFolder, '..'));
      expect(await rejection(place('x', true), 'TEMPLATE_INVALID')).toMatchObject({ path: stackFolder });
      await rejection(requireStackFolder(stackFolder), 'TEMPLATE_INVALID');
      expect(Object.keys(await snapshot(join(stackFolder, '..')))).toEqual(
        expect.arrayContaining(Object.keys(before)),
      );
      await rm(stackFolder);
    }
  });
});

test('of many at once one makes the stack; of many that replace, one is last, whole, with its own config', async () => {
  const { stackFolder, image, place } = await catalogIn();
  const made = await Promise.allSettled([...'0123456789'].map((digit) => place(digit, false, digit)));
  expect(made.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  const had = await Promise.all([...'0123456789'].map((digit) => place(digit, true, digit)));
  expect(had).toEqual(Array(10).fill(true));
  const last = await readFile(image, 'utf8');
  expect((await readdir(stackFolder)).sort()).toEqual(['rootfs.ext4', config(last)].sort());
});

test('a stack that goes while its lock is waited for is made anew; an abort ends the wait', async () => {
  const { managed, stackFolder, image, place } = await catalogIn();
  await place('first');
  await managed.use(async ({ handle }) => {
    const lock = async () => (await native().lockSlot(handle, 'web', true)) as NativeLockedSlot;
    const locked = await lock();
    const aborted = AbortSignal.timeout(50);
    await rejection(place('second', true, undefined, aborted), 'ABORT_ERR');
    const waiting = place('third');
    await rm(stackFolder, { recursive: true });
    native().dispose(locked);
    expect(await waiting).toBe(false);
  });
  expect(await readFile(image, 'utf8')).toBe('third');
});

test('into a mount point the image is copied, with its mode; a full one keeps its image', async ({
  skip,
}) => {
  const missing = lacksRoot();
  if (missing !== undefined) skip(missing);
  const { stackFolder, image, place } = await catalogIn();
  await mkdir(stackFolder);
  mountTmpfs(stackFolder);
  execFileSync('mount', ['-o', 'remount,size=1m', stackFolder]);
  await writeFile(join(stackFolder, INCOMING), 'of a killed process');
  expect(await place('first', false, 'a')).toBe(false);
  expect((await stat(image)).mode & 0o777).toBe(0o444);
  await expect(place(pattern(2 * MiB), true)).rejects.toMatchObject({ errno: -constants.errno.ENOSPC });
  expect(await readFile(image, 'utf8')).toBe('first');
  expect(await exists(join(stackFolder, INCOMING))).toBe(false);
  expect(await place('second', true, 'b')).toBe(true);
  expect((await readdir(stackFolder)).sort()).toEqual(['rootfs.ext4', config('b')].sort());
});
