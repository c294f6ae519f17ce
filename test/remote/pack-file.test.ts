// Packs as they are sent: frames in order, in files, whatever their number.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { open, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, expect, inject, onTestFinished, test } from 'vitest';
import { Buffers } from '../../src/remote/buffers.js';
import { CHUNK_LIMIT, type ListedChunk } from '../../src/remote/chunk-list.js';
import { PackFile } from '../../src/remote/pack-file.js';
import { Task } from '../../src/system/task.js';
import { listOf } from '../fixtures/chunk-lists.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks } from '../fixtures/tools.js';

beforeEach(({ skip }) => {
  const missing = lacks('zstd');
  if (missing !== undefined) skip(missing);
});

const task = new Task('pushing', undefined);

/** An image of these chunks, open, and what makes a pack of all of them. */
async function imageOf(chunks: readonly Buffer[]) {
  const { root } = await Host.in(inject('scratch'));
  const path = join(root, 'image');
  await writeFile(path, Buffer.concat(chunks));
  const file = await open(path, 'r');
  onTestFinished(() => file.close());
  const list = await listOf(chunks.map(listed));
  const buffers = new Buffers(CHUNK_LIMIT);
  const make = async (name: string) => {
    const folder = join(root, name);
    const source = { file, list, first: 0, end: list.count, level: 1, folder, buffers };
    const pack = await PackFile.make(task, source);
    onTestFinished(() => pack.close());
    return pack;
  };
  return { root, path, make };
}

function listed(content: Buffer): ListedChunk {
  const sha256 = createHash('sha256').update(content).digest();
  return { length: content.length, sha256: content.some((byte) => byte !== 0) ? sha256 : undefined };
}

/** A copy: each piece is overwritten. */
async function bytesOf(pack: PackFile): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of pack.pieces()) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

test.each([
  ['data alone', 'd'],
  ['zeros alone', 'zz'],
  ['zeros first, between and last', 'zdddzzdz'],
  ['data first and last', 'dzddd'],
])('a pack of %s restores to its chunks, and is read again as often as asked', async (_, kinds) => {
  const chunks = [...kinds].map((kind, i) =>
    kind === 'z' ? Buffer.alloc(40_000 + i) : pattern(CHUNK_LIMIT - i, i),
  );
  const { root, make } = await imageOf(chunks);
  const pack = await make('pack');
  expect(await readdir(root)).not.toContain('pack');
  const bytes = await bytesOf(pack);
  expect((await bytesOf(pack)).equals(bytes)).toBe(true);
  expect(pack.lengths).toHaveLength(chunks.length);
  let at = 0;
  for (const [i, chunk] of chunks.entries()) {
    const frame = bytes.subarray(at, at + (pack.lengths[i] as number));
    const restored = execFileSync('zstd', ['-d', '-c', '-q'], { input: frame, maxBuffer: 2 * CHUNK_LIMIT });
    expect(restored.equals(chunk), `${i}`).toBe(true);
    at += frame.length;
  }
  expect(at).toBe(bytes.length);
});

test('an upload that begins anew does not disturb the one that it replaces', async () => {
  const { make } = await imageOf([pattern(CHUNK_LIMIT, 1), Buffer.alloc(4096), pattern(CHUNK_LIMIT, 2)]);
  const pack = await make('pack');
  const first = pack.pieces();
  const { value: piece } = await first.next();
  const before = Buffer.from(piece as Buffer);
  await bytesOf(pack);
  expect((piece as Buffer).equals(before)).toBe(true);
});

test('packs that wait to be sent take no memory for their bytes', async () => {
  const { make } = await imageOf(Array.from({ length: 16 }, (_, i) => pattern(CHUNK_LIMIT, i)));
  const { arrayBuffers: before } = process.memoryUsage();
  const packs: PackFile[] = [];
  for (let i = 0; i < 8; i++) packs.push(await make(`${i}`));
  const bytes = packs.reduce((sum, { lengths }) => sum + lengths.reduce((all, length) => all + length), 0);
  expect(bytes).toBeGreaterThan(32 * MiB);
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(8 * MiB);
});

test('an image that has changed since it was cut is SOURCE_CHANGED, and leaves nothing', async () => {
  const { root, path, make } = await imageOf([pattern(100_000, 1)]);
  await writeFile(path, pattern(100_000, 2));
  await rejection(make('pack'), 'SOURCE_CHANGED');
  expect(await readdir(root)).not.toContain('pack');
});
