// Sizes that 32 bits cannot hold, in files that take next to no space.
import { stat } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { allocatedBytes, readRange, writeSparse } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { GiB, KiB, MiB, pattern } from '../fixtures/images.js';

const SIZE = 6 * GiB;
const BEYOND_32_BITS = 5 * GiB + 4096;
const MARK = pattern(64 * KiB);
// What sha256sum says of such a file.
const DIGEST = '894dc5889f093079ffe4000ef92fb3c3ba4a930ce3025f179d10e75c1fa2380f';

test.each([
  ['reflinked', 'XFS'],
  ['copied', 'ext4'],
])('a 6 GiB sparse template with data beyond 4 GiB: %s', { timeout: 120_000 }, async (_what, name) => {
  const { path, missing } = filesystemNamed(name);
  const host = await Host.in(missing === undefined ? path : undefined);
  const template = await host.placeTemplate('debian', (at) =>
    writeSparse(at, SIZE, { 0: MARK, [BEYOND_32_BITS]: MARK }),
  );
  const clone = await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
  expect(clone).toMatchObject({ sizeBytes: SIZE, sourceSha256: DIGEST });
  expect((await stat(clone.path)).size).toBe(SIZE);
  expect(await readRange(clone.path, BEYOND_32_BITS, MARK.length)).toEqual(MARK);
  expect(await readRange(clone.path, BEYOND_32_BITS - 4 * GiB, MARK.length)).toEqual(
    Buffer.alloc(MARK.length),
  );
  expect(await allocatedBytes(clone.path)).toBeLessThanOrEqual((await allocatedBytes(template)) + 8 * MiB);
});
