// The boundary to the addon: kinds of handles, shapes of errors, and what it must refuse even if src/ had a bug.
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { inspectSlot, type NativeSource, native } from '../../src/addon/native.js';
import { isSystemError } from '../../src/system/errors.js';
import { describeEachFilesystem, filesystemNamed } from '../fixtures/each-filesystem.js';
import { sha256, writeSparse } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { KiB, MiB, pattern } from '../fixtures/images.js';

async function fileIn(folder: string, contents: Buffer | string = 'contents'): Promise<string> {
  const path = join((await Host.in(folder || undefined)).root, 'file');
  await writeFile(path, contents);
  return path;
}

async function failure(
  call: Promise<unknown>,
): Promise<{ errno: number; syscall: string; path?: string; dest?: string }> {
  const error = await call.then(
    () => undefined,
    (reason) => reason,
  );
  if (!isSystemError(error)) throw new Error(`expected a failure of the system, got ${error}`);
  return error;
}

describe('failures', () => {
  test('carry errno, syscall and path', async () => {
    expect(await failure(native().openSource('/nonexistent/file'))).toMatchObject({
      errno: -2,
      syscall: 'statx',
      path: '/nonexistent/file',
    });
    expect(await failure(native().openFolder('/nonexistent/folder'))).toMatchObject({
      errno: -2,
      syscall: 'open',
    });
  });

  test('of what is no regular file: EINVAL, and it is not opened', async () => {
    for (const path of ['/dev/zero', '/tmp', '/proc/self/fd']) {
      expect(await failure(native().openSource(path))).toMatchObject({ errno: -22, syscall: 'open', path });
    }
  });

  test('are errors with a stack, for those who print them', async () => {
    await expect(native().openSource('/nonexistent')).rejects.toBeInstanceOf(Error);
  });
});

describe('handles', () => {
  test('one kind is not taken for another', async () => {
    const { source } = await native().openSource(await fileIn(''));
    const host = await Host.in();
    await mkdir(host.clonesDir);
    const { handle } = await native().openFolder(host.clonesDir);
    const digest = native().newDigest(source);
    const wrong: (() => unknown)[] = [
      () => native().checkSource(handle as unknown as NativeSource),
      () => native().checkSource(digest as unknown as NativeSource),
      () => native().sweep(source as never, 1),
      () => native().digestStep(source as never, 1),
      () => native().discardSlot(handle as never),
    ];
    for (const call of wrong) expect(call).toThrow('not an open handle of the expected kind');
    for (const each of [digest, source, handle]) native().dispose(each);
  });

  test.each([[undefined], [null], [{}], ['source'], [7]])('%j is none', (value) => {
    expect(() => native().checkSource(value as unknown as NativeSource)).toThrow(TypeError);
  });

  test('one that was disposed of is refused, and disposing of it again does nothing', async () => {
    const { source } = await native().openSource(await fileIn(''));
    native().dispose(source);
    native().dispose(source);
    expect(() => native().checkSource(source)).toThrow('not an open handle');
  });

  test('work under way keeps what it needs although the handle is disposed of', async () => {
    const { source } = await native().openSource(await fileIn('', pattern(8 * MiB)));
    const digest = native().newDigest(source);
    const step = native().digestStep(digest, 1 << 30);
    native().dispose(digest);
    native().dispose(source);
    expect(await step).toEqual({ bytesDone: 8 * MiB, sha256: sha256(pattern(8 * MiB)) });
  });
});

describe('a digest in steps', () => {
  test.each([63, 4096, 100_000, MiB])('of %i bytes is the digest of the whole', async (budget) => {
    const bytes = pattern(100_001);
    const { source } = await native().openSource(await fileIn('', bytes));
    const digest = native().newDigest(source);
    let last: { bytesDone: number; sha256?: string };
    do last = await native().digestStep(digest, budget);
    while (last.sha256 === undefined);
    expect(last).toEqual({ bytesDone: bytes.length, sha256: sha256(bytes) });
    native().dispose(source);
  });
});

describe('sweeping in slices', () => {
  test('takes about as many files as its budget, and says whether there is more', async () => {
    const host = await Host.in();
    const trash = join(host.clonesDir, '.microvm-rootfs', 'trash');
    for (let i = 0; i < 10; i++) {
      await mkdir(join(trash, `slot-${i}`), { recursive: true });
      await writeFile(join(trash, `slot-${i}`, 'rootfs.ext4'), 'x');
    }
    const { handle } = await native().openFolder(host.clonesDir);
    const first = await native().sweep(handle, 4);
    expect(first.more).toBe(true);
    const left = (await readdir(trash)).length;
    expect(left).toBeGreaterThan(5);
    let removed = first.trashRemoved;
    for (let more = true; more; ) {
      const report = await native().sweep(handle, 4);
      removed += report.trashRemoved;
      more = report.more;
    }
    expect(removed).toBe(10);
    expect(await readdir(trash)).toEqual([]);
    await native().closeFolder(handle);
    native().dispose(handle);
  });
});

describeEachFilesystem((filesystem) => {
  test('says whether the folder can reflink', async () => {
    const host = await Host.in(filesystem.path);
    await mkdir(host.clonesDir);
    const { handle, reflinks, sessionPath } = await native().openFolder(host.clonesDir);
    expect(reflinks).toBe(filesystem.reflinks);
    // FUSE closes files behind the caller's back, and what is removed before that keeps another name for a while.
    const left = (await readdir(sessionPath)).filter((name) => !name.startsWith('.fuse_hidden'));
    expect(left).toEqual([]);
    await native().closeFolder(handle);
    native().dispose(handle);
  });

  test('says whether some process has a file open', async () => {
    const path = await fileIn(filesystem.path);
    expect(await native().openElsewhere(path, false)).toBe(false);
    const { source, openForWriting } = await native().openSource(path);
    expect(openForWriting).toBe(false);
    expect(await native().openElsewhere(path, false)).toBe(true);
    native().dispose(source);
  });

  test('counts extents, or says that it cannot', async () => {
    const islands = { 0: pattern(64 * KiB), [MiB]: pattern(64 * KiB), [2 * MiB]: pattern(64 * KiB) };
    const host = await Host.in(filesystem.path);
    const path = join(host.root, 'islands');
    await writeSparse(path, 4 * MiB, islands);
    const { source } = await native().openSource(path);
    if (filesystem.fiemap) expect(await native().extentCount(source)).toBe(3);
    else expect([-95, -25]).toContain((await failure(native().extentCount(source))).errno);
    native().dispose(source);
  });
});

test("an absent slot, and one that is somebody else's", async () => {
  const { missing, path } = filesystemNamed('XFS');
  const host = await Host.in(missing === undefined ? path : undefined);
  await mkdir(join(host.clonesDir, 'folder'), { recursive: true });
  await writeFile(join(host.clonesDir, 'file'), '');
  const { handle } = await native().openFolder(host.clonesDir);
  expect((await inspectSlot(handle, 'absent')).kind).toBe('absent');
  expect((await inspectSlot(handle, 'file')).kind).toBe('not-a-folder');
  expect(await inspectSlot(handle, 'folder')).toMatchObject({ kind: 'absent', stamp: undefined });
  expect(await native().lockSlot(handle, 'absent', true)).toBe('absent');
  const locked = await native().lockSlot(handle, 'folder', true);
  expect(await native().lockSlot(handle, 'folder', true)).toBe('busy');
  native().dispose(locked as never);
  const again = await native().lockSlot(handle, 'folder', true);
  expect(typeof again).toBe('object');
  native().dispose(again as never);
  await native().closeFolder(handle);
  native().dispose(handle);
});

test('the data ranges of a file are one array of numbers, which takes no time for each', async () => {
  const path = await fileIn('');
  await writeSparse(path, 64 * KiB, { [16 * KiB]: pattern(4 * KiB), [32 * KiB]: pattern(8 * KiB) });
  const ranges = await native().dataRanges(Buffer.from(path), 64 * KiB);
  expect(ranges).toEqual(Float64Array.of(16 * KiB, 20 * KiB, 32 * KiB, 40 * KiB));
});
