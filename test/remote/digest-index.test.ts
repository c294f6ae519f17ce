// Which chunks of an image have a digest: the same as in a map of texts.
import { expect, test } from 'vitest';
import { ChunkSet } from '../../src/remote/chunk-set.js';
import { DigestIndex } from '../../src/remote/digest-index.js';
import { dataChunk, listOf } from '../fixtures/chunk-lists.js';
import { KiB } from '../fixtures/images.js';
import { Random } from '../fixtures/random.js';

const ZEROS = { length: 64 * KiB, sha256: undefined };

test('chunks are found by their digests, and each is taken once', async () => {
  const random = new Random(121);
  for (let round = 0; round < 50; round++) {
    const count = random.below(300);
    const chunks = Array.from({ length: count }, () =>
      random.chance(0.2) ? ZEROS : dataChunk(8 * KiB, random.below(1 + count / 2)),
    );
    const set = await ChunkSet.ofData(await listOf(chunks));
    const left = new Map<number, string>();
    for (const [i, { sha256 }] of chunks.entries()) if (sha256) left.set(i, sha256.toString('hex'));
    for (const gone of [...left.keys()].filter(() => random.chance(0.3))) {
      set.delete(gone);
      left.delete(gone);
    }
    expect(set.size).toBe(left.size);
    const index = await DigestIndex.of(set);
    for (let i = 0; i <= count; i++) {
      const { sha256 } = dataChunk(1, i);
      const places = [...left.keys()].filter((chunk) => left.get(chunk) === sha256?.toString('hex'));
      expect(index.has(sha256 as Buffer)).toBe(places.length > 0);
      expect([...index.take(sha256 as Buffer)].sort((a, b) => a - b)).toEqual(places);
      expect(index.has(sha256 as Buffer)).toBe(false);
    }
  }
});

test('digests with the same first bits are told apart, and what is not taken stays', async () => {
  const digest = (last: number) => Buffer.concat([Buffer.alloc(31, 7), Buffer.from([last])]);
  const chunks = [1, 2, 1, 3, 2, 1].map((last) => ({ length: 8 * KiB, sha256: digest(last) }));
  const index = await DigestIndex.of(await ChunkSet.ofData(await listOf(chunks)));
  expect([...index.take(digest(2))].sort()).toEqual([1, 4]);
  expect([...index.take(digest(4))]).toEqual([]);
  for (const chunk of index.take(digest(1))) {
    expect([0, 2, 5]).toContain(chunk);
    break;
  }
  expect([...index.take(digest(1))]).toHaveLength(2);
  expect([...index.take(digest(3))]).toEqual([3]);
});
