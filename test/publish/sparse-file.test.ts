import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { SparseFile } from '../../src/publish/sparse-file.js';
import { allocatedBytes } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { KiB, MiB, pattern } from '../fixtures/images.js';

async function writeAll(path: string, chunks: readonly Buffer[]): Promise<number> {
  const file = await SparseFile.create(path);
  try {
    for (const chunk of chunks) await file.write(chunk);
    return await file.finish();
  } finally {
    await file.close();
  }
}

test('zeros are holes, wherever they are, and the length is kept', async () => {
  const { root } = await Host.in();
  const path = join(root, 'sparse');
  const data = [
    Buffer.alloc(3 * MiB),
    pattern(8 * KiB),
    Buffer.alloc(5 * MiB + 7),
    pattern(100),
    Buffer.alloc(2 * MiB + 1),
  ];
  expect(await writeAll(path, data)).toBe(Buffer.concat(data).length);
  expect((await readFile(path)).equals(Buffer.concat(data))).toBe(true);
  expect(await allocatedBytes(path)).toBeLessThanOrEqual(32 * KiB);
});

test('however it comes in chunks, the file is what was written', async () => {
  const { root } = await Host.in();
  let run = 0;
  const piece = fc.record({ zeros: fc.boolean(), length: fc.oneof(fc.nat(10_000), fc.nat(2 * MiB)) });
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { maxLength: 8 }), async (pieces) => {
      const chunks = pieces.map(({ zeros, length }, i) =>
        zeros ? Buffer.alloc(length) : pattern(length, i + 1),
      );
      const path = join(root, `${run++}`);
      await writeAll(path, chunks);
      expect((await readFile(path)).equals(Buffer.concat(chunks))).toBe(true);
    }),
    { numRuns: 25 },
  );
});

test('nothing at all is an empty file; a name that is taken is not written to', async () => {
  const { root } = await Host.in();
  await writeAll(join(root, 'empty'), []);
  expect((await stat(join(root, 'empty'))).size).toBe(0);
  await expect(SparseFile.create(join(root, 'empty'))).rejects.toMatchObject({ code: 'EEXIST' });
});
