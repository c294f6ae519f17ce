// A clone never takes more blocks than its template, whatever way it was made.
import { expect, test } from 'vitest';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { allocatedBytes, sha256Of, writeSparse } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { KiB, MiB, makeExt4Image, pattern } from '../fixtures/images.js';

const WRITABLE = { writable: true } as const;

const SHAPES: [string, number, Record<number, Buffer>][] = [
  ['all data', MiB, { 0: pattern(MiB) }],
  ['all hole', 12 * MiB, {}],
  ['a trailing hole', 12 * MiB, { 0: pattern(256 * KiB) }],
  ['a leading hole', 12 * MiB, { [12 * MiB - 256 * KiB]: pattern(256 * KiB) }],
  ['data in the middle', 12 * MiB, { [6 * MiB]: pattern(256 * KiB) }],
  ['a length that is no multiple of a block', 8 * MiB + 123, { [8 * MiB]: pattern(123) }],
  [
    'data up to the middle of a block',
    8 * MiB + 123,
    { 0: pattern(2 * MiB), [5 * MiB]: pattern(3 * MiB + 123) },
  ],
  [
    'many islands',
    12 * MiB,
    Object.fromEntries(Array.from({ length: 12 }, (_, i) => [i * MiB, pattern(64 * KiB, i + 1)])),
  ],
];

/** Sealing may fill small gaps, so that clones are quick: docs/design.md says with how much. */
const SEALING_MAY_ADD_BYTES = 8 * MiB;

describeEachFilesystem((filesystem) => {
  // Where it cannot be told what is a hole, blocks of zeros are left out one by one, which can cost a block to index
  // the rest.
  const index = filesystem.seekHole ? 0 : 4 * KiB;
  const allowedBytes = async (template: string, mayBeSealed: boolean) => {
    const bytes = (await allocatedBytes(template)) + index;
    return filesystem.reflinks && mayBeSealed ? SEALING_MAY_ADD_BYTES + bytes * 1.25 : bytes;
  };

  test.each(SHAPES)('%s', async (_what, sizeBytes, data) => {
    const host = await Host.in(filesystem.path);
    const template = await host.placeTemplate('debian', (path) => writeSparse(path, sizeBytes, data));
    const direct = await host.anotherRegistry({ sealing: 'off' }).cloneForVm('direct', 'debian', WRITABLE);
    expect(direct.sizeBytes).toBe(sizeBytes);
    expect(await allocatedBytes(direct.path)).toBeLessThanOrEqual(await allowedBytes(template, false));
    expect(await sha256Of(direct.path)).toBe(direct.sourceSha256);
    expect(await sha256Of(template)).toBe(direct.sourceSha256);

    const clone = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    expect(clone).toMatchObject({ sizeBytes, sourceSha256: direct.sourceSha256 });
    expect(await allocatedBytes(clone.path)).toBeLessThanOrEqual(await allowedBytes(template, true));
    expect(await sha256Of(clone.path)).toBe(clone.sourceSha256);
  });

  test('a real image', async () => {
    const host = await Host.in(filesystem.path);
    const template = await host.placeTemplate('debian', (path) => makeExt4Image(path, 64 * MiB));
    const direct = await host.anotherRegistry({ sealing: 'off' }).cloneForVm('direct', 'debian', WRITABLE);
    expect(await allocatedBytes(direct.path)).toBeLessThanOrEqual(await allowedBytes(template, false));
    const clone = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    expect(await allocatedBytes(clone.path)).toBeLessThanOrEqual(await allowedBytes(template, true));
    expect(await sha256Of(clone.path)).toBe(clone.sourceSha256);
  });

  test('growing adds few blocks to those of the template', async () => {
    const host = await Host.in(filesystem.path);
    const template = await host.addExt4Template('debian', 16 * MiB);
    const clone = await host.registry.cloneForVmWithSize('vm-1', 'debian', 128 * MiB);
    expect(await allocatedBytes(clone.path)).toBeLessThan((await allowedBytes(template, true)) + 8 * MiB);
  });
});
