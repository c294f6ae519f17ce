// Which chunks are sent together: all of them, in order, in blobs of a size that registries take.
import { expect, test } from 'vitest';
import { CHUNK_LIMIT, type ListedChunk, ZERO_CHUNK_LIMIT } from '../../src/remote/chunk-list.js';
import { packEnds, packEndsOfAll } from '../../src/remote/packs.js';
import { dataChunk, listOf } from '../fixtures/chunk-lists.js';
import { KiB, MiB } from '../fixtures/images.js';
import { Random } from '../fixtures/random.js';

const zeros: ListedChunk = { length: ZERO_CHUNK_LIMIT, sha256: undefined, frameBytes: 1 };

const packed = async (chunks: readonly ListedChunk[]) => {
  const ends = await packEnds(await listOf(chunks));
  // Refuses packs that are empty, out of order, or leave chunks out.
  return { ends, list: await listOf(chunks, ends) };
};

test('every chunk is in one pack, and no pack has more data than the longest', async () => {
  const random = new Random(101);
  for (let round = 0; round < 100; round++) {
    const chunks = Array.from({ length: random.below(600) }, (_, i) =>
      random.chance(0.1) ? zeros : dataChunk(1 + random.below(CHUNK_LIMIT), `${round} ${i}`),
    );
    const { list, ends } = await packed(chunks);
    expect(ends.at(-1)).toBe(chunks.length === 0 ? undefined : chunks.length);
    for (const { first, end } of list.packs) {
      const bytes = chunks
        .slice(first, end)
        .reduce((sum, { length, sha256 }) => sum + (sha256 ? length : 0), 0);
      expect(bytes).toBeLessThanOrEqual(12 * MiB);
      // Only what is left at the end is shorter.
      if (end < chunks.length) expect(bytes).toBeGreaterThanOrEqual(4 * MiB);
    }
  }
});

test('an image of nothing has no packs, and one of zeros alone has one', async () => {
  expect((await packed([])).ends).toEqual([]);
  expect((await packed([zeros, zeros])).ends).toEqual([2]);
  expect((await packed([zeros, dataChunk(1, 1), zeros])).ends).toEqual([3]);
});

test('chunks that would never end a pack are cut at the longest', async () => {
  const never = { length: CHUNK_LIMIT, sha256: Buffer.alloc(32, 0xff), frameBytes: 1 };
  const { ends } = await packed(Array.from({ length: 100 }, () => never));
  expect(ends).toEqual([24, 48, 72, 96, 100]);
  const always = { length: CHUNK_LIMIT, sha256: Buffer.alloc(32), frameBytes: 1 };
  expect((await packed(Array.from({ length: 20 }, () => always))).ends).toEqual([8, 16, 20]);
});

test('a change in one chunk leaves all packs but one or two as they were', async () => {
  const chunks = Array.from({ length: 3000 }, (_, i) => dataChunk(128 * KiB, i));
  const packsOf = async (all: readonly ListedChunk[]) => {
    const { list } = await packed(all);
    return list.packs.map(({ first, end }) =>
      all
        .slice(first, end)
        .map(({ sha256 }) => sha256?.toString('hex'))
        .join(),
    );
  };
  const before = new Set(await packsOf(chunks));
  expect(before.size).toBeGreaterThan(20);
  for (const at of [0, 777, 2999]) {
    const after = await packsOf(chunks.with(at, dataChunk(128 * KiB, 'another')));
    expect(after.filter((pack) => !before.has(pack)).length).toBeLessThanOrEqual(4);
    const longer = await packsOf([...chunks.slice(0, at), dataChunk(64 * KiB, 'new'), ...chunks.slice(at)]);
    expect(longer.filter((pack) => !before.has(pack)).length).toBeLessThanOrEqual(4);
  }
});

test('an image of tens of gigabytes has packs that fit into a manifest', async () => {
  const chunks = Array.from({ length: 100_000 }, (_, i) => dataChunk(CHUNK_LIMIT, i));
  const { ends } = await packed(chunks);
  expect(ends.length).toBeLessThan(6000);
  expect(ends.length).toBeGreaterThan(500);
});

test('several images in one artifact keep the packs that each would have in its own', async () => {
  const images = await Promise.all([1, 2].map((seed) => listOf(randomData(seed, 4000))));
  const own = await Promise.all(images.map((image) => packEnds(image)));
  expect(await packEndsOfAll(images, [300, 300])).toEqual(own);
});

test('many large images have fewer and larger packs: the manifest stays below the 4 MiB of registries', async () => {
  const images = await Promise.all([1, 2, 3, 4].map((seed) => listOf(randomData(seed, 32_000))));
  const ends = await packEndsOfAll(images, [700, 700, 700, 700]);
  expect(ends.flat().length * 700).toBeLessThanOrEqual(3 * MiB);
  for (const [i, image] of images.entries()) {
    expect(ends[i]?.at(-1)).toBe(image.count);
    expect(ends[i]?.length).toBeLessThan((await packEnds(image)).length);
  }
});

function randomData(seed: number, count: number): ListedChunk[] {
  return Array.from({ length: count }, (_, i) => dataChunk(CHUNK_LIMIT, `${seed} ${i}`));
}
