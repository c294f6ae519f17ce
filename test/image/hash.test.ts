import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, closeSync, openSync, truncateSync, writeSync } from 'node:fs';
import { mkdir, open, truncate, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { hashFile, type Progress } from '../../src/index.js';
import { describeEachFilesystem, filesystemNamed } from '../fixtures/each-filesystem.js';
import { sha256, sha256Of, writeSparse } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks } from '../fixtures/tools.js';

async function fileOf(contents: Buffer | string): Promise<string> {
  const path = join((await Host.in()).root, 'file');
  await writeFile(path, contents);
  return path;
}

// Around SHA-256's block of 64 bytes, its padding that needs 9, and our buffer.
test.each([
  1,
  55,
  56,
  57,
  63,
  64,
  65,
  119,
  120,
  127,
  128,
  4095,
  4096,
  4097,
  131_071,
  131_072,
  131_073,
  MiB + 1,
])("agrees with Node's SHA-256 on %i bytes", async (length) => {
  const bytes = pattern(length, length);
  expect(await hashFile(await fileOf(bytes))).toBe(sha256(bytes));
});

test('a relative path is of the folder that the process was in at the call', async () => {
  const path = await fileOf('here');
  const cwd = process.cwd();
  process.chdir(dirname(path));
  try {
    const hashed = hashFile(basename(path));
    process.chdir('/');
    expect(await hashed).toBe(sha256('here'));
  } finally {
    process.chdir(cwd);
  }
});

test('holes are hashed as the zeros that they are', async () => {
  const path = join((await Host.in()).root, 'sparse');
  await writeSparse(path, 48 * MiB, { [20 * MiB]: pattern(5000) });
  expect(await hashFile(path)).toBe(await sha256Of(path));
});

test('progress goes up to the whole, and the last report is complete', async () => {
  const path = await fileOf(pattern(40 * MiB));
  const reports: Progress[] = [];
  await hashFile(path, { onProgress: (progress) => reports.push({ ...progress }) });
  expect(reports.length).toBeGreaterThan(1);
  expect(reports.every(({ bytesTotal }) => bytesTotal === 40 * MiB)).toBe(true);
  const done = reports.map(({ bytesDone }) => bytesDone);
  expect(done).toEqual([...done].sort((a, b) => a - b));
  expect(done.at(-1)).toBe(40 * MiB);
});

test('an exception from onProgress ends the work and reaches the caller as it is', async () => {
  const path = await fileOf(pattern(MiB));
  const bug = new TypeError('bug in the callback');
  const hashing = hashFile(path, {
    onProgress: () => {
      throw bug;
    },
  });
  await expect(hashing).rejects.toBe(bug);
});

test('an abort half-way ends the work, with its reason as cause', async () => {
  const path = await fileOf(pattern(64 * MiB));
  const controller = new AbortController();
  const reason = new Error('enough');
  const error = await rejection(
    hashFile(path, { signal: controller.signal, onProgress: () => controller.abort(reason) }),
    'ABORT_ERR',
  );
  expect(error).toMatchObject({ name: 'AbortError', cause: reason });
});

test('a signal that was aborted before starts nothing', async () => {
  await rejection(hashFile('/nonexistent', { signal: AbortSignal.abort() }), 'ABORT_ERR');
});

test('the event loop stays free meanwhile', async () => {
  const path = await fileOf(pattern(64 * MiB));
  let ticks = 0;
  const timer = setInterval(() => ticks++, 1);
  await hashFile(path);
  clearInterval(timer);
  expect(ticks).toBeGreaterThan(3);
});

test('many files at once', async () => {
  const host = await Host.in();
  const paths = Array.from({ length: 50 }, (_, i) => join(host.root, `file-${i}`));
  await Promise.all(paths.map((path, i) => writeFile(path, `contents ${i}`)));
  expect(await Promise.all(paths.map((path) => hashFile(path)))).toEqual(
    paths.map((_, i) => sha256(`contents ${i}`)),
  );
});

test('what is no regular file is refused, and not waited for', async () => {
  const folder = join((await Host.in()).root, 'folder');
  await mkdir(folder);
  await rejection(hashFile(folder), 'INVALID_ARGUMENT');
  await rejection(hashFile('/dev/zero'), 'INVALID_ARGUMENT');
});

test.each([
  ['a path that is a number', 7, {}],
  ['an empty path', '', {}],
  ['NUL in the path', '/tmp/\0', {}],
  ['a callback that is none', '/tmp/x', { onProgress: 'yes' }],
  ['a signal that is none', '/tmp/x', { signal: {} }],
  ['an unknown option', '/tmp/x', { progress: () => {} }],
  ['options that are none', '/tmp/x', null],
])('refuses %s', async (_what, path, options) => {
  await rejection(hashFile(path as string, options as object), 'INVALID_ARGUMENT');
});

test.each([
  ['grows', 41 * MiB],
  ['shrinks', 20 * MiB],
])('a file that %s meanwhile is an error', async (_, length) => {
  const path = await fileOf(pattern(40 * MiB));
  const onProgress = () => truncateSync(path, length);
  await rejection(hashFile(path, { onProgress }), 'SOURCE_CHANGED');
});

test('so is one whose bytes change and whose length does not', async () => {
  const path = await fileOf(pattern(40 * MiB));
  const onProgress = () => {
    const file = openSync(path, 'r+');
    writeSync(file, 'later');
    closeSync(file);
  };
  await rejection(hashFile(path, { onProgress }), 'SOURCE_CHANGED');
});

test('a file that grows with every slice is given up at the length it had', async () => {
  const path = await fileOf(pattern(20 * MiB));
  let reports = 0;
  const onProgress = () => {
    reports++;
    appendFileSync(path, Buffer.alloc(32 * MiB));
  };
  await rejection(hashFile(path, { onProgress }), 'SOURCE_CHANGED');
  expect(reports).toBe(1);
});

const REAL_DISKS = ['XFS', 'btrfs', 'ext4'];

describeEachFilesystem(
  ({ path }) => {
    test('so is one that is written to through a mapping that was written to before', async ({ skip }) => {
      const missing = lacks('g++');
      if (missing !== undefined) skip(missing);
      const { root } = await Host.in(path);
      const [file, writer] = [join(root, 'memory'), join(root, 'writer')];
      await writeFile(file, pattern(20 * MiB));
      execFileSync('cc', ['-O1', '-o', writer, 'test/image/mapped_writer.c']);
      const child = spawn(writer, [file]);
      onTestFinished(() => void child.kill());
      await once(child.stdout, 'data');
      for (let i = 0; i < 3; i++) await rejection(hashFile(file), 'SOURCE_CHANGED');
    });
  },
  ({ name }) => REAL_DISKS.includes(name),
);

test('one that is open for writing, and not written to, has its digest', async () => {
  const path = await fileOf(pattern(MiB));
  const file = await open(path, 'r+');
  await file.write('early');
  expect(await hashFile(path)).toBe(await sha256Of(path));
  await file.close();
});

test('files that somebody made endless keep no other waiting', async () => {
  const { root } = await Host.in(filesystemNamed('XFS').path);
  const paths = Array.from({ length: 64 }, (_, i) => join(root, `memory-${i}`));
  for (const path of paths) {
    await writeFile(path, '');
    await truncate(path, 2 ** 50);
  }
  const short = join(root, 'short');
  await writeFile(short, 'abc');
  const stop = new AbortController();
  const endless = Promise.allSettled(paths.map((path) => hashFile(path, { signal: stop.signal })));
  expect(await hashFile(short)).toBe(sha256(Buffer.from('abc')));
  stop.abort();
  for (const { status } of await endless) expect(status).toBe('rejected');
});
