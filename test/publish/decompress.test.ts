// Decompressing a source of any size into a sparse file.
import { appendFile, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { decompress } from '../../src/publish/decompress.js';
import { DEFAULT_LIMITS } from '../../src/publish/publish-options.js';
import { Task } from '../../src/system/task.js';
import { allocatedBytes } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { KiB, MiB, pattern, run } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks } from '../fixtures/tools.js';

async function decompressed(bytes: Buffer, maxBytes = DEFAULT_LIMITS.maxBytes): Promise<string> {
  const { root } = await Host.in();
  const path = join(root, 'source.gz');
  const dest = join(root, 'dest');
  await writeFile(path, bytes);
  const limits = { ...DEFAULT_LIMITS, maxBytes };
  const request = { format: 'gzip', path, source: path, dest, limits, sparse: { fillGaps: false } } as const;
  await decompress(new Task('decompressing', undefined), request, () => {});
  return dest;
}

test('several members are one file', async () => {
  const parts = [pattern(100 * KiB, 1), pattern(100 * KiB, 2)];
  const dest = await decompressed(Buffer.concat(parts.map((part) => gzipSync(part))));
  expect((await readFile(dest)).equals(Buffer.concat(parts))).toBe(true);
});

test.each([1, 512, 100 * KiB, 5 * MiB])(
  '%i bytes of padding after the last member do not count',
  async (bytes) => {
    const content = pattern(3 * MiB);
    const dest = await decompressed(Buffer.concat([gzipSync(content), Buffer.alloc(bytes)]));
    expect((await readFile(dest)).equals(content)).toBe(true);
  },
);

test('zeros become a hole', async () => {
  const dest = await decompressed(gzipSync(Buffer.concat([pattern(4 * KiB), Buffer.alloc(4 * MiB)])));
  expect((await readFile(dest)).length).toBe(4 * MiB + 4 * KiB);
  expect(await allocatedBytes(dest)).toBeLessThan(MiB);
});

test('what is cut off or damaged is refused, wherever it is', async () => {
  const bytes = gzipSync(pattern(64 * KiB));
  for (const length of [11, 1000, bytes.length - 4, bytes.length - 1])
    await rejection(decompressed(bytes.subarray(0, length)), 'IMAGE_INVALID');
  const damaged = Buffer.from(bytes);
  damaged.writeUInt8(damaged.readUInt8(5000) ^ 1, 5000);
  await rejection(decompressed(damaged), 'IMAGE_INVALID');
});

test('what was added behind the end is named as what may be wrong', async () => {
  const signed = Buffer.concat([gzipSync(pattern(KiB)), Buffer.from('untrusted comment: signature')]);
  const { message } = await rejection(decompressed(signed), 'IMAGE_INVALID');
  expect(message).toMatch(/added behind its end, cut it off$/);
  const cut = await rejection(decompressed(gzipSync(pattern(KiB)).subarray(0, 500)), 'IMAGE_INVALID');
  expect(cut.message).not.toContain('added');
});

test('what holds more than the limit ends there', async () => {
  const bomb = gzipSync(Buffer.alloc(64 * MiB));
  const { message } = await rejection(decompressed(bomb, MiB), 'SOURCE_TOO_LARGE');
  expect(message).toContain('limits.maxBytes');
});

test('a member behind zeros is not dropped: gzip itself warns of it', async () => {
  const [first, second] = [gzipSync(pattern(KiB)), gzipSync(pattern(KiB, 2))];
  for (const zeros of [1, 512, 3 * MiB]) {
    const both = Buffer.concat([first, Buffer.alloc(zeros), second]);
    const { message } = await rejection(decompressed(both), 'IMAGE_INVALID');
    expect(message).toContain(`at byte ${first.length + zeros}`);
  }
});

test('a limit of memory beyond what zstd takes is no limit', async ({ skip }) => {
  const missing = lacks('zstd');
  if (missing !== undefined) skip(missing);
  const { root } = await Host.in();
  const [path, source] = [join(root, 'source.zst'), join(root, 'source')];
  await writeFile(source, pattern(KiB));
  await run('zstd', ['-q', source, '-o', path]);
  for (const maxWindowBytes of [2 ** 32, 2 ** 33, Number.MAX_SAFE_INTEGER]) {
    const dest = join(root, `${maxWindowBytes}`);
    const limits = { ...DEFAULT_LIMITS, maxWindowBytes };
    const request = { format: 'zstd', path, source, dest, limits, sparse: { fillGaps: false } } as const;
    await decompress(new Task('decompressing', undefined), request, () => {});
    expect((await readFile(dest)).equals(pattern(KiB))).toBe(true);
  }
});

test('zeros behind the end of zstd are named as what may be wrong with it', async ({ skip }) => {
  const missing = lacks('zstd');
  if (missing !== undefined) skip(missing);
  const { root } = await Host.in();
  const [path, source, dest] = [join(root, 'source.zst'), join(root, 'source'), join(root, 'dest')];
  await writeFile(source, pattern(KiB));
  await run('zstd', ['-q', source, '-o', path]);
  await appendFile(path, Buffer.alloc(512));
  const of = { path, source, dest, limits: DEFAULT_LIMITS };
  const request = { ...of, format: 'zstd', sparse: { fillGaps: false } } as const;
  const decompressing = decompress(new Task('decompressing', undefined), request, () => {});
  expect((await rejection(decompressing, 'IMAGE_INVALID')).message).toContain(
    'behind its end, such as zeros',
  );
});
