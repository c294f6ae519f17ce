// The index of an artifact, which comes from a registry: it is read as it was written, or refused.
import { expect, test } from 'vitest';
import { CHUNK_LIMIT, ChunkList, type ListedChunk, ZERO_CHUNK_LIMIT } from '../../src/remote/chunk-list.js';
import { listOf } from '../fixtures/chunk-lists.js';
import { Random } from '../fixtures/random.js';
import { rejection } from '../fixtures/rejection.js';

const digest = (byte: number) => Buffer.alloc(32, byte);

function someChunks(random: Random): ListedChunk[] {
  return Array.from({ length: random.below(40) }, (_, i) =>
    random.chance(0.3)
      ? {
          length: 1 + random.below(ZERO_CHUNK_LIMIT),
          sha256: undefined,
          frameBytes: 1 + random.below(2 ** 20),
        }
      : {
          length: 1 + random.below(CHUNK_LIMIT),
          sha256: digest(i + 1),
          frameBytes: 1 + random.below(2 ** 32),
        },
  );
}

function someEnds(random: Random, count: number): number[] {
  const ends: number[] = [];
  for (let end = 0; end < count; ) {
    end = Math.min(count, end + 1 + random.below(9));
    ends.push(end);
  }
  return ends;
}

function expectSame(list: ChunkList, chunks: readonly ListedChunk[]): void {
  expect(list.count).toBe(chunks.length);
  let offset = 0;
  let data = 0;
  chunks.forEach(({ length, sha256 }, i) => {
    expect([list.offset(i), list.length(i), list.isZero(i)]).toEqual([offset, length, sha256 === undefined]);
    if (sha256 !== undefined) expect(list.sha256(i).equals(sha256)).toBe(true);
    offset += length;
    if (sha256 !== undefined) data += length;
  });
  expect([list.sizeBytes, list.dataBytes]).toEqual([offset, data]);
}

test('what is built is read back: chunks, packs, and frames that are added later', async () => {
  const random = new Random(81);
  for (let round = 0; round < 200; round++) {
    const chunks = someChunks(random);
    const ends = someEnds(random, chunks.length);
    const built = await listOf(chunks, ends);
    expectSame(built, chunks);
    const parsed = await ChunkList.parse(Buffer.from(built.bytes));
    expectSame(parsed, chunks);
    expect(parsed.packs.map(({ end }) => end)).toEqual(ends);
    for (const { first, end, sizeBytes } of parsed.packs) {
      const frames = chunks.slice(first, end).map(({ frameBytes }) => frameBytes as number);
      expect(sizeBytes).toBe(frames.reduce((sum, bytes) => sum + bytes, 0));
    }
    const bare = await listOf(chunks.map(({ length, sha256 }) => ({ length, sha256 })));
    expect(bare.packs).toEqual([]);
    const frames = Uint32Array.from(chunks, ({ frameBytes }) => frameBytes as number);
    expect((await bare.withFrames(ends, frames)).bytes.equals(built.bytes)).toBe(true);
    // Cut in another way, from a list that has packs already.
    const again = await built.withFrames(chunks.length === 0 ? [] : [chunks.length], frames);
    expect(again.packs).toHaveLength(Math.min(1, chunks.length));
    expectSame(again, chunks);
  }
});

test('lists of several gigabytes are added up exactly', async () => {
  const chunks = Array.from({ length: 200 }, () => ({ length: ZERO_CHUNK_LIMIT, sha256: undefined }));
  expect((await listOf(chunks)).sizeBytes).toBe(200 * ZERO_CHUNK_LIMIT);
});

test.each<[string, ListedChunk[], number[]?]>([
  ['a chunk of no bytes', [{ length: 0, sha256: digest(1) }]],
  ['a chunk of no zeros', [{ length: 0, sha256: undefined }]],
  ['a chunk that is too long', [{ length: CHUNK_LIMIT + 1, sha256: digest(1) }]],
  ['too many zeros', [{ length: ZERO_CHUNK_LIMIT + 1, sha256: undefined }]],
  ['a pack of chunks without frames', [{ length: 1, sha256: digest(1) }], [1]],
  ['an empty pack', [{ length: 1, sha256: digest(1), frameBytes: 1 }], [0, 1]],
  ['a pack of more chunks than there are', [{ length: 1, sha256: digest(1), frameBytes: 1 }], [2]],
])('%s is refused', async (_, chunks, ends) => {
  await rejection(listOf(chunks, ends), 'ARTIFACT_INVALID');
});

test('a chunk that is in no pack is refused', async () => {
  const chunk = { length: 1, sha256: digest(1), frameBytes: 1 };
  await rejection(listOf([chunk, chunk], [1]), 'ARTIFACT_INVALID');
});

test('a list that is cut off, longer, or of another format is refused', async () => {
  const { bytes } = await listOf([{ length: 5, sha256: digest(1), frameBytes: 3 }], [1]);
  for (let length = 0; length < bytes.length; length++)
    await rejection(ChunkList.parse(bytes.subarray(0, length)), 'ARTIFACT_INVALID');
  await rejection(ChunkList.parse(Buffer.concat([bytes, Buffer.alloc(1)])), 'ARTIFACT_INVALID');
  const other = Buffer.from(bytes);
  other.write('MVRFIDX2');
  await rejection(ChunkList.parse(other), 'ARTIFACT_INVALID');
});

test('millions of chunks of a byte each are refused', async () => {
  const tiny = (count: number) =>
    listOf(Array.from({ length: count }, () => ({ length: 1, sha256: digest(1), frameBytes: 1 })));
  await rejection(tiny(2000), 'ARTIFACT_INVALID');
  expect((await tiny(1000)).count).toBe(1000);
});

test('counts that would need terabytes are refused by the length of the list, at once', async () => {
  const bytes = Buffer.alloc(64);
  bytes.write('MVRFIDX1');
  const started = performance.now();
  for (const [packs, chunks] of [
    [2 ** 32 - 1, 2 ** 32 - 1],
    [0, 2 ** 32 - 1],
    [2 ** 32 - 1, 0],
    [11, 0],
  ] as const) {
    bytes.writeUInt32LE(packs, 16);
    bytes.writeUInt32LE(chunks, 20);
    await rejection(ChunkList.parse(bytes), 'ARTIFACT_INVALID');
  }
  expect(performance.now() - started).toBeLessThan(1000);
});

test('bytes changed by chance are refused, or make a list whose chunks add up to the image', async () => {
  const random = new Random(82);
  for (let round = 0; round < 2000; round++) {
    const chunks = someChunks(random);
    const { bytes } = await listOf(chunks, someEnds(random, chunks.length));
    const harmed = Buffer.from(bytes);
    for (let changes = 1 + random.below(4); changes > 0; changes--)
      harmed[random.below(random.chance(0.5) ? 24 : harmed.length)] = random.below(256);
    let list: ChunkList;
    try {
      list = await ChunkList.parse(harmed);
    } catch (error) {
      expect(error).toMatchObject({ code: 'ARTIFACT_INVALID' });
      continue;
    }
    let offset = 0;
    for (let i = 0; i < list.count; i++) {
      expect(list.offset(i)).toBe(offset);
      expect(list.length(i)).toBeGreaterThan(0);
      expect(list.length(i)).toBeLessThanOrEqual(list.isZero(i) ? ZERO_CHUNK_LIMIT : CHUNK_LIMIT);
      offset += list.length(i);
    }
    expect(list.sizeBytes).toBe(offset);
    expect(list.packs.at(-1)?.end ?? list.count).toBe(list.count);
  }
});
