// zstd frames: those of zeros that are written by hand, and where frames end in a stream of them.
import { execFileSync } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, expect, inject, test } from 'vitest';
import { ZERO_CHUNK_LIMIT } from '../../src/remote/chunk-list.js';
import { FrameLengths, zeroFrame } from '../../src/remote/frames.js';
import { compressed, framesOf } from '../fixtures/frames.js';
import { Host } from '../fixtures/host.js';
import { KiB, pattern } from '../fixtures/images.js';
import { Random } from '../fixtures/random.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks } from '../fixtures/tools.js';

beforeEach(({ skip }) => {
  const missing = lacks('zstd');
  if (missing !== undefined) skip(missing);
});

const restore = (frames: Buffer) =>
  execFileSync('zstd', ['-d', '-c', '-q', '--memory=8MiB'], {
    input: frames,
    maxBuffer: 2 * ZERO_CHUNK_LIMIT,
    stdio: ['pipe', 'pipe', 'pipe'],
  });

const BLOCK = 128 * KiB;

test.each([1, 2, 3, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 2, 2 * BLOCK + 1, 10 * BLOCK, ZERO_CHUNK_LIMIT])(
  'zstd restores %i zeros from a small frame',
  (length) => {
    const frame = zeroFrame(length);
    expect(frame.length).toBeLessThanOrEqual(14 + 4 * Math.ceil(length / BLOCK));
    const restored = restore(frame);
    expect(restored.length).toBe(length);
    expect(restored.equals(Buffer.alloc(length))).toBe(true);
    const lengths = new FrameLengths();
    lengths.add(frame);
    expect([lengths.lengths, lengths.isWhole]).toEqual([[frame.length], true]);
  },
);

test('frames of zeros and frames of the program stand in one stream', async () => {
  const data = pattern(300_000);
  const frames = Buffer.concat([zeroFrame(5000), await framesOf([data]), zeroFrame(1)]);
  expect(restore(frames).equals(Buffer.concat([Buffer.alloc(5000), data, Buffer.alloc(1)]))).toBe(true);
});

test('the ends of frames are found wherever the stream is cut, and each frame stands for itself', async () => {
  const random = new Random(111);
  const text = Buffer.from('the same words again and again '.repeat(20_000));
  const contents = [
    Buffer.from('x'),
    pattern(100),
    Buffer.alloc(70_000),
    text,
    pattern(256),
    pattern(500_000, 2),
    Buffer.concat([pattern(70_000, 3), text, Buffer.alloc(200_000)]),
    Buffer.from('y'),
  ];
  for (const level of [1, 3, 19, 22]) {
    const frames = Buffer.concat([await framesOf(contents, level), zeroFrame(300_000)]);
    const whole = new FrameLengths();
    whole.add(frames);
    expect(whole.lengths).toHaveLength(contents.length + 1);
    expect(whole.lengths.reduce((sum, length) => sum + length, 0)).toBe(frames.length);
    let at = 0;
    for (const [i, length] of whole.lengths.slice(0, -1).entries()) {
      expect(restore(frames.subarray(at, at + length)).equals(contents[i] as Buffer), `${level}: ${i}`).toBe(
        true,
      );
      at += length;
    }
    for (let round = 0; round < 8; round++) {
      const parts = new FrameLengths();
      const most = random.pick([1, 2, 7, 1000, 70_000]);
      for (let from = 0; from < frames.length; ) {
        const length = 1 + random.below(most);
        parts.add(frames.subarray(from, from + length));
        from += length;
      }
      expect(parts.lengths).toEqual(whole.lengths);
      expect(parts.isWhole).toBe(true);
    }
  }
});

test('a stream is whole after a frame, and nowhere within one', async () => {
  const frames = await framesOf([pattern(1000), Buffer.from('end')]);
  const ends = new FrameLengths();
  ends.add(frames);
  const [first = 0] = ends.lengths;
  for (let length = 1; length <= frames.length; length++) {
    const lengths = new FrameLengths();
    lengths.add(frames.subarray(0, length));
    expect(lengths.isWhole, `${length} bytes`).toBe(length === first || length === frames.length);
    expect(lengths.lengths.length).toBe(length < first ? 0 : length < frames.length ? 1 : 2);
  }
  expect(() => new FrameLengths().add(Buffer.from('no frame'))).toThrow('not a zstd frame');
});

test('the same contents give the same bytes, in the order of the files', async () => {
  const contents = [pattern(10_000, 5), pattern(20_000, 6)];
  const frames = await framesOf(contents);
  expect((await framesOf(contents)).equals(frames)).toBe(true);
  expect((await framesOf([...contents].reverse())).equals(frames)).toBe(false);
});

test('a file that is not there, or a name like an option, is no surprise', async () => {
  const { root } = await Host.in(inject('scratch'));
  await writeFile(join(root, '--rm'), 'kept');
  expect(restore(await compressed(['--rm'], 3, root)).toString()).toBe('kept');
  await rejection(compressed(['nowhere'], 3, root), 'PROGRAM_FAILED');
});
