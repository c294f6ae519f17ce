// Flushing files and folders on real file systems: also on those that cannot be written to, and what a failure names.
import { execFileSync } from 'node:child_process';
import { chmod, mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, onTestFinished, test } from 'vitest';
import { flush, flushName, inFlushTurn, writeFlushed } from '../../src/system/flush.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { mountBind } from '../fixtures/mounts.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';
import { newWorkspace } from '../fixtures/workspace.js';

const modeOf = async (path: string) => (await stat(path)).mode & 0o7777;

describeEachFilesystem((filesystem) => {
  test('files and folders are flushed, and what is written is there, whole and under its mode', async () => {
    const { root } = await Host.in(filesystem.path);
    const file = join(root, 'file');
    await writeFlushed(file, 'longer than what comes', 0o600);
    await writeFlushed(file, Buffer.from('short'), 0o444);
    expect(await readFile(file, 'utf8')).toBe('short');
    expect(await modeOf(file)).toBe(0o644);
    await writeFlushed(join(root, 'empty'), '', 0o444);
    expect((await stat(join(root, 'empty'))).size).toBe(0);
    await flush(file);
    await flushName(root, file, 'again');
  });

  test('a file system that was made read-only is flushed without an error, and takes no new file', async ({
    skip,
  }) => {
    const missing = lacksRoot();
    if (missing !== undefined) skip(missing);
    const { root } = await Host.in(filesystem.path);
    const [there, place] = [join(root, 'there'), join(root, 'place')];
    for (const folder of [there, place]) await mkdir(folder);
    await writeFile(join(there, 'file'), 'data');
    mountBind(there, place);
    execFileSync('mount', ['-o', 'remount,bind,ro', place]);
    await flush(join(place, 'file'));
    await flushName(place, join(place, 'file'), 'again');
    const path = join(place, 'new');
    await expect(writeFlushed(path, 'x', 0o600)).rejects.toMatchObject({ code: 'EROFS', path });
  });
});

test('squashfs, which nothing can write to, has nothing unflushed', async ({ skip }) => {
  const missing = lacksRoot() ?? lacks('mksquashfs');
  if (missing !== undefined) skip(missing);
  const { root, templateDir } = await Host.in(inject('scratch'));
  const [place, image] = [join(root, 'place'), join(root, 'image')];
  await mkdir(place);
  await writeFile(join(templateDir, 'file'), 'data');
  execFileSync('mksquashfs', [templateDir, image, '-quiet', '-no-progress'], { stdio: 'pipe' });
  try {
    execFileSync('mount', ['-t', 'squashfs', '-o', 'loop,ro', image, place], { stdio: 'pipe' });
  } catch (error) {
    skip(`this kernel mounts no squashfs: ${error}`);
  }
  onTestFinished(() => void execFileSync('umount', [place]));
  await flush(join(place, 'file'));
  await flush(place);
});

test('the umask takes nothing from the mode, and a mode that was wider stays', async () => {
  const { root } = await Host.in(inject('scratch'));
  const [fresh, wide] = [join(root, 'fresh'), join(root, 'wide')];
  await writeFile(wide, '');
  await chmod(wide, 0o666);
  const umask = process.umask(0o077);
  try {
    await writeFlushed(fresh, 'x', 0o444);
    await writeFlushed(wide, 'x', 0o444);
  } finally {
    process.umask(umask);
  }
  expect(await modeOf(fresh)).toBe(0o444);
  expect(await modeOf(wide)).toBe(0o666);
});

test('what is not there is named; a published name that could not be flushed is said to be complete', async () => {
  const { root } = await Host.in(inject('scratch'));
  const gone = join(root, 'gone');
  await symlink('nowhere', join(root, 'dangling'));
  for (const path of [gone, join(root, 'dangling')])
    await expect(flush(path)).rejects.toMatchObject({ code: 'ENOENT', path });
  const failed = flushName(gone, join(gone, 'image'), 'publish it again');
  await expect(failed).rejects.toMatchObject({ code: 'ENOENT', path: gone });
  const message = `${gone}/image: it is complete, but a power cut may lose it (publish it again)`;
  await expect(failed).rejects.toThrow(message);
  expect(await readdir(root)).not.toContain('gone');
});

test('a full disk fails with the path of the file, and a flush that failed ends no later one', async ({
  skip,
}) => {
  const missing = lacksRoot();
  if (missing !== undefined) skip(missing);
  const disk = newWorkspace().mount('full', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs']);
  const path = join(disk, 'file');
  await expect(writeFlushed(path, Buffer.alloc(1 << 20, 1), 0o600)).rejects.toMatchObject({ code: 'ENOSPC' });
  await rm(path);
  const failing = inFlushTurn('x', () => Promise.reject(new Error('failed')));
  const after = flush(disk);
  await expect(failing).rejects.toThrow('failed');
  await after;
});

test('one flush at a time, in the order in which they were asked for', async () => {
  const events: string[] = [];
  const slow = (name: string) =>
    inFlushTurn(name, async () => {
      events.push(`${name} begins`);
      await new Promise((resolve) => setImmediate(resolve));
      events.push(`${name} ends`);
    });
  await Promise.all(['a', 'b', 'c'].map(slow));
  expect(events).toEqual(['a', 'b', 'c'].flatMap((name) => [`${name} begins`, `${name} ends`]));
});
