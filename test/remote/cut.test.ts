// Cutting an image into chunks: the whole image, at places that its contents choose.
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, onTestFinished, test } from 'vitest';
import { readFully } from '../../src/image/read-bytes.js';
import { BLOCK_BYTES, isZeroBlock } from '../../src/image/zero-block.js';
import { CHUNK_LIMIT, type ChunkList, ZERO_CHUNK_LIMIT } from '../../src/remote/chunk-list.js';
import { cutImage } from '../../src/remote/cut.js';
import { Task } from '../../src/system/task.js';
import { sha256, writeSparse } from '../fixtures/files.js';
import { Host, openFileOf } from '../fixtures/host.js';
import { KiB, MiB, pattern } from '../fixtures/images.js';
import { Random } from '../fixtures/random.js';
import { rejection } from '../fixtures/rejection.js';

const SHORTEST = 32 * KiB;

async function cut(bytes: Buffer, sizeBytes = bytes.length): Promise<ChunkList> {
  const file = await openFileOf(bytes);
  const { list, sha256: whole } = await cutImage(new Task('cutting', undefined), file, sizeBytes, () => {});
  expect(whole).toBe(sha256(bytes.subarray(0, sizeBytes)));
  return list;
}

const digests = (list: ChunkList) =>
  Array.from({ length: list.count }, (_, i) => (list.isZero(i) ? 'zeros' : list.sha256(i).toString('hex')));

/** Each chunk has its bytes, and a length that is allowed; zeros are apart where there are enough of them. */
function expectTrue(list: ChunkList, bytes: Buffer): void {
  expect(list.sizeBytes).toBe(bytes.length);
  for (let i = 0; i < list.count; i++) {
    const chunk = bytes.subarray(list.offset(i), list.offset(i) + list.length(i));
    expect(list.offset(i) % BLOCK_BYTES).toBe(0);
    if (list.isZero(i)) {
      expect(chunk.every((byte) => byte === 0)).toBe(true);
      expect(chunk.length).toBeGreaterThanOrEqual(SHORTEST);
      expect(chunk.length).toBeLessThanOrEqual(ZERO_CHUNK_LIMIT);
    } else {
      expect(list.sha256(i).toString('hex')).toBe(sha256(chunk));
      expect(chunk.length).toBeLessThanOrEqual(CHUNK_LIMIT);
      expect(chunk.equals(Buffer.alloc(chunk.length)) && chunk.length >= SHORTEST).toBe(false);
    }
  }
}

test('images of any length, with zeros in any place, are cut into chunks that make them up', async () => {
  const random = new Random(91);
  for (let round = 0; round < 12; round++) {
    const bytes = pattern(random.pick([1, 4095, 4097, SHORTEST, 700_001, 3 * MiB + 5]), round + 1);
    for (let count = random.below(6); count > 0; count--) {
      const at = random.below(bytes.length);
      const length = random.pick([1, BLOCK_BYTES, 2 * BLOCK_BYTES, SHORTEST + BLOCK_BYTES, MiB]);
      bytes.fill(0, at, Math.min(bytes.length, at + length));
    }
    expectTrue(await cut(bytes), bytes);
  }
});

test('nothing is an empty list, and zeros of every length are cut as data or as zeros', async () => {
  expect((await cut(Buffer.alloc(0))).count).toBe(0);
  for (const length of [1, BLOCK_BYTES, SHORTEST - 1])
    expect(digests(await cut(Buffer.alloc(length)))).toEqual([sha256(Buffer.alloc(length))]);
  for (const length of [SHORTEST, SHORTEST + 1, MiB + 7])
    expect(digests(await cut(Buffer.alloc(length)))).toEqual(['zeros']);
});

test('more zeros than one chunk may have are several', async () => {
  const path = join((await Host.in(inject('scratch'))).root, 'image');
  const sizeBytes = BLOCK_BYTES + 2 * ZERO_CHUNK_LIMIT + SHORTEST + 3;
  await writeSparse(path, sizeBytes, { 0: Buffer.from('x') });
  const file = await open(path);
  onTestFinished(() => file.close());
  const { list } = await cutImage(new Task('cutting', undefined), file, sizeBytes, () => {});
  expect(digests(list).slice(1)).toEqual(['zeros', 'zeros', 'zeros']);
  expect(list.length(0)).toBe(BLOCK_BYTES);
  expect([list.length(1), list.length(2)]).toEqual([ZERO_CHUNK_LIMIT, ZERO_CHUNK_LIMIT]);
  expect(list.sizeBytes).toBe(sizeBytes);
});

test('data that never chooses a place to end is cut at the limit', async () => {
  // One block, again and again: its hash ends a chunk always or never.
  for (let seed = 1; seed < 4; seed++) {
    const block = pattern(BLOCK_BYTES, seed);
    const list = await cut(Buffer.concat(Array.from({ length: 300 }, () => block)));
    const lengths = Array.from({ length: list.count - 1 }, (_, i) => list.length(i));
    expect(new Set(lengths).size).toBe(1);
    expect([SHORTEST, CHUNK_LIMIT]).toContain(lengths[0]);
  }
});

test('a file gives the same chunks wherever it lies, and a change is in the chunks around it', async () => {
  const file = pattern(4 * MiB, 3);
  const before = digests(await cut(file));
  const moved = digests(await cut(Buffer.concat([pattern(13 * BLOCK_BYTES, 9), file])));
  const isKnown = (digest: string) => before.includes(digest);
  expect(moved.filter(isKnown).length).toBeGreaterThanOrEqual(before.length - 8);
  const changed = Buffer.from(file);
  changed[2 * MiB] = (changed[2 * MiB] as number) ^ 1;
  expect(digests(await cut(changed)).filter(isKnown).length).toBeGreaterThanOrEqual(before.length - 4);
});

test('only the first bytes that were asked for are cut, and a file that ends before gives a shorter list', async () => {
  const bytes = pattern(2 * MiB);
  expectTrue(await cut(bytes, 100_000), bytes.subarray(0, 100_000));
  expect((await cut(bytes, 3 * MiB)).sizeBytes).toBeLessThan(3 * MiB);
});

test('progress is told up to the end, and an abort ends the work', async () => {
  const bytes = pattern(2 * MiB + 1);
  const told: number[] = [];
  const file = await openFileOf(bytes);
  await cutImage(new Task('cutting', undefined), file, bytes.length, (done) => told.push(done));
  expect(told).toEqual([MiB, 2 * MiB, 2 * MiB + 1]);
  const controller = new AbortController();
  const task = new Task('cutting', controller.signal);
  await rejection(
    cutImage(task, file, bytes.length, () => controller.abort()),
    'ABORT_ERR',
  );
});

test('blocks of zeros are told by all of their bytes', async () => {
  for (const length of [0, 1, 100, BLOCK_BYTES]) {
    expect(isZeroBlock(Buffer.alloc(length))).toBe(true);
    if (length > 0)
      expect(isZeroBlock(Buffer.concat([Buffer.alloc(length - 1), Buffer.from([1])]))).toBe(false);
  }
  const buffer = Buffer.alloc(10, 'z');
  expect(await readFully(await openFileOf(Buffer.from('abc')), buffer, 1)).toBe(2);
  expect(buffer.toString()).toBe('bczzzzzzzz');
});
