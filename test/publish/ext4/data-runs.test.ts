// Which blocks of a file are not all zeros: the same whatever a source tells of its holes.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { addRuns, type BlockRun, runsOf } from '../../../src/publish/ext4/data-runs.js';
import { BLOCK_BYTES } from '../../../src/publish/ext4/layout.js';
import type { Segment } from '../../../src/publish/tree/file-tree.js';
import { Host } from '../../fixtures/host.js';
import { pattern } from '../../fixtures/images.js';
import { Random } from '../../fixtures/random.js';
import { contentAt } from '../../fixtures/tree-images.js';

/** Looked at block by block. */
function expected(bytes: Buffer): BlockRun[] {
  const runs: { first: number; count: number }[] = [];
  for (let block = 0; block * BLOCK_BYTES < bytes.length; block++) {
    if (bytes.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES).every((byte) => byte === 0)) continue;
    const last = runs.at(-1);
    if (last !== undefined && last.first + last.count === block) last.count++;
    else runs.push({ first: block, count: 1 });
  }
  return runs;
}

/** A file of whole blocks, some of which are zeros. */
function someBytes(random: Random): Buffer {
  const bytes = Buffer.alloc(random.below(40 * BLOCK_BYTES) + 1);
  for (let count = random.below(12); count > 0; count--)
    pattern(random.pick([1, 100, BLOCK_BYTES, 3 * BLOCK_BYTES]), count).copy(
      bytes,
      random.below(bytes.length),
    );
  return bytes;
}

test('the runs are those of the bytes, however the source cuts them into segments', async () => {
  const { root } = await Host.in(inject('scratch'));
  const path = join(root, 'source');
  const random = new Random(33);
  for (let round = 0; round < 60; round++) {
    const bytes = someBytes(random);
    // Stored with gaps between the segments, where zeros can be left out.
    const segments: Segment[] = [];
    const stored: Buffer[] = [];
    let from = 0;
    for (let at = 0; at < bytes.length; ) {
      const length = Math.min(bytes.length - at, random.pick([1, 511, BLOCK_BYTES - 1, BLOCK_BYTES, 9999]));
      const part = bytes.subarray(at, at + length);
      if (part.some((byte) => byte !== 0) || random.chance(0.5)) {
        segments.push({ at, length, from });
        stored.push(part);
        from += length;
      } else if (random.chance(0.3)) segments.push({ at, length: 0, from });
      at += length;
    }
    await writeFile(path, Buffer.concat(stored));
    expect(await runsOf(contentAt(path, bytes.length, segments))).toEqual(expected(bytes));
  }
});

test('runs go on from one read to the next, and over more blocks than one read has', async () => {
  const { root } = await Host.in(inject('scratch'));
  const path = join(root, 'source');
  await writeFile(path, pattern(600 * BLOCK_BYTES));
  const whole = contentAt(path, 600 * BLOCK_BYTES, [{ at: 0, length: 600 * BLOCK_BYTES, from: 0 }]);
  expect(await runsOf(whole)).toEqual([{ first: 0, count: 600 }]);
  const runs: BlockRun[] = [];
  for (const first of [0, 2, 4]) addRuns(runs, pattern(2 * BLOCK_BYTES), first);
  addRuns(runs, Buffer.alloc(BLOCK_BYTES), 6);
  addRuns(runs, pattern(BLOCK_BYTES), 7);
  expect(runs).toEqual([
    { first: 0, count: 6 },
    { first: 7, count: 1 },
  ]);
});

test('a file of 8 TiB with one byte in it is looked at where the byte is', async () => {
  const { root } = await Host.in(inject('scratch'));
  const path = join(root, 'source');
  await writeFile(path, 'x');
  const at = 2 ** 43 - 1;
  expect(await runsOf(contentAt(path, at + 1, [{ at, length: 1, from: 0 }]))).toEqual([
    { first: 2 ** 31 - 1, count: 1 },
  ]);
  expect(await runsOf(contentAt(path, at + 1, []))).toEqual([]);
});

test('a source that ends before its last segment is told', async () => {
  const { root } = await Host.in(inject('scratch'));
  const path = join(root, 'source');
  await writeFile(path, pattern(100));
  const short = contentAt(path, 101, [{ at: 0, length: 101, from: 0 }]);
  await expect(runsOf(short)).rejects.toThrow('ended early');
});
