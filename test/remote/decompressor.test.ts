// Frames are decompressed by programs that stay. What one call gets is never a part of what another was given, and
// whatever the frames say, no call waits for ever.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { open, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeEach, expect, inject, onTestFinished, test, vi } from 'vitest';
import { native } from '../../src/addon/native.js';
import { CHUNK_LIMIT } from '../../src/remote/chunk-list.js';
import { decompress, type Output, withZstd } from '../../src/remote/decompressor.js';
import { isOneFrame, rawFrame, skippedFrame, zeroFrame } from '../../src/remote/frames.js';
import { Task } from '../../src/system/task.js';
import { framesOf } from '../fixtures/frames.js';
import { Host } from '../fixtures/host.js';
import { pattern } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks } from '../fixtures/tools.js';

beforeEach(({ skip }) => {
  const missing = lacks('zstd');
  if (missing !== undefined) skip(missing);
});

const task = new Task('decompressing', undefined);

/** An image, and what writes these contents into it one behind the other. */
async function newImage() {
  const path = join((await Host.in(inject('scratch'))).root, 'image');
  const file = await open(path, 'w+');
  onTestFinished(() => file.close());
  const taking =
    (...contents: readonly Buffer[]) =>
    async ({ pipe, skipBytes, endMark }: Output): Promise<boolean> => {
      let at = 0;
      const offsetsAndLengths = contents.flatMap(({ length }) => {
        at += length;
        return [at - length, length];
      });
      const sha256s = contents.map((bytes) => createHash('sha256').update(bytes).digest('hex')).join('');
      const ranges = Float64Array.from(offsetsAndLengths);
      const expected = { skipBytes, ranges, sha256s, endMark };
      const { isWhole } = await native().receiveChunks(pipe, file.fd, path, expected);
      return isWhole;
    };
  return { path, taking };
}

/** Of this process: the numbers of its zstd programs. */
async function running(): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const stats = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')));
  return stats
    .filter((stat) => stat.includes(' (zstd) ') && Number(stat.split(') ')[1]?.split(' ')[1]) === process.pid)
    .map((stat) => Number.parseInt(stat, 10));
}

test('one program serves many calls, and ends with the last pull', async () => {
  const { path, taking } = await newImage();
  const contents = [1, 2, 3, 4095, 4096, 4097, 70_000, 500_000].map((length) => pattern(length));
  const programs = new Set<number>();
  await withZstd(async () => {
    for (const bytes of contents) {
      expect(await decompress(task, await framesOf([bytes]), path, taking(bytes))).toBe(true);
      expect((await readFile(path)).subarray(0, bytes.length).equals(bytes)).toBe(true);
      for (const pid of await running()) programs.add(pid);
    }
    await withZstd(async () => {});
    expect(await running()).toHaveLength(1);
  });
  expect(programs.size).toBe(1);
  expect(await running()).toEqual([]);
});

test('calls at once get what is theirs', async () => {
  const contents = Array.from(
    { length: 12 },
    (_, i) => [pattern(200_000 + i, i), pattern(10 + i, i)] as const,
  );
  const frames = await Promise.all(contents.map((each) => framesOf(each)));
  await withZstd(() =>
    Promise.all(
      contents.map(async (each, i) => {
        const { path, taking } = await newImage();
        expect(await decompress(task, frames[i] as Buffer, path, taking(...each))).toBe(true);
        expect((await readFile(path)).equals(Buffer.concat(each))).toBe(true);
      }),
    ),
  );
});

test('wrong frames are told, and the next call is none the worse', async () => {
  const { path, taking } = await newImage();
  const [a, b, long] = [pattern(5000, 1), pattern(6000, 2), pattern(5_000_000, 3)];
  const [ofA, ofB, ofLong] = [await framesOf([a]), await framesOf([b]), await framesOf([long])];
  const damaged = Buffer.from(ofB);
  damaged.fill(0xff, 12, 40);
  const wrong = [
    { frames: ofB, wanted: [a] },
    { frames: Buffer.concat([ofA, ofB]), wanted: [a] },
    { frames: Buffer.concat([ofA, zeroFrame(1)]), wanted: [a] },
    { frames: Buffer.concat([ofA, ofLong]), wanted: [a] },
    { frames: ofA, wanted: [a, b] },
    { frames: ofA, wanted: [pattern(CHUNK_LIMIT)] },
    { frames: damaged, wanted: [b] },
  ];
  await withZstd(async () => {
    for (const { frames, wanted } of wrong) {
      expect(await decompress(task, frames, path, taking(...wanted))).toBe(false);
      expect(await decompress(task, ofA, path, taking(a))).toBe(true);
    }
  });
});

test('a program that was killed while it works is told as such', async () => {
  const { path, taking } = await newImage();
  const bytes = pattern(5000);
  const frames = await framesOf([bytes]);
  await withZstd(async () => {
    await decompress(task, frames, path, taking(bytes));
    const killing = async (output: Output) => {
      for (const pid of await running()) process.kill(pid, 'SIGKILL');
      return taking(bytes, pattern(5000))(output);
    };
    const error = await rejection(decompress(task, frames, path, killing), 'PROGRAM_FAILED');
    expect(error.message).toMatch(/SIGKILL/);
    expect(await decompress(task, frames, path, taking(bytes))).toBe(true);
  });
});

test('a program that was killed while it waited is replaced', async () => {
  const { path, taking } = await newImage();
  const bytes = pattern(5000);
  const frames = await framesOf([bytes]);
  await withZstd(async () => {
    await decompress(task, frames, path, taking(bytes));
    for (const pid of await running()) process.kill(pid, 'SIGKILL');
    await vi.waitFor(async () => expect(await running()).toEqual([]));
    await sleep(100); // Node tells of it once its pipes are closed
    expect(await decompress(task, frames, path, taking(bytes))).toBe(true);
  });
});

test('a call that is aborted, and one that fails, leave no program behind', async () => {
  const { path, taking } = await newImage();
  const bytes = pattern(5000);
  const frames = await framesOf([bytes]);
  const controller = new AbortController();
  await withZstd(async () => {
    await decompress(task, frames, path, taking(bytes));
    const waiting = taking(bytes, pattern(2 * CHUNK_LIMIT));
    const aborted = decompress(new Task('decompressing', controller.signal), frames, path, waiting);
    setTimeout(() => controller.abort(), 100);
    await rejection(aborted, 'ABORT_ERR');
    await expect(
      decompress(task, frames, path, () => Promise.reject(new Error('the disk is full'))),
    ).rejects.toThrow('the disk is full');
    expect(await running()).toEqual([]);
    expect(await decompress(task, frames, path, taking(bytes))).toBe(true);
  });
});

test('heads tell whether a frame would take what comes behind it for its own', async () => {
  const bytes = pattern(300_000, 4);
  const frame = await framesOf([bytes]);
  const withChecksum = execFileSync('zstd', ['-c', '-q', '--check'], { input: bytes, maxBuffer: 2 ** 20 });
  const noLast = Buffer.from(rawFrame(Buffer.from('12345678')));
  noLast.writeUInt8(noLast.readUInt8(6) & ~1, 6);
  const cut = [1, 3, 8, 9, 12, frame.length - 1].map((length) => frame.subarray(0, length));
  expect(
    [frame, withChecksum, zeroFrame(1), zeroFrame(500_000), rawFrame(bytes.subarray(0, 9))].map(isOneFrame),
  ).toEqual(Array(5).fill(true));
  const none = [
    Buffer.alloc(0),
    noLast,
    skippedFrame(100),
    Buffer.alloc(100),
    Buffer.concat([frame, frame]),
    ...cut,
  ];
  expect(none.map(isOneFrame)).toEqual(none.map(() => false));
});
