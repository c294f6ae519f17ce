// File systems that take two names for one: ext4 with `casefold` ignores case and Unicode form.
import { basename, dirname, join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { Host } from '../fixtures/host.js';
import { MiB, makeExt4Image } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';

// Few kernels can mount ext4 with `casefold`, so lstat stands in for one that can.
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof import('node:fs/promises')>();
  const folded = (name: string) =>
    name
      .normalize('NFD')
      .replace(/\p{Default_Ignorable_Code_Point}/gu, '')
      .toLowerCase();
  const found = async (path: string) => {
    const name = basename(path);
    const entries = await real.readdir(dirname(path)).catch(() => [] as string[]);
    return join(dirname(path), entries.find((entry) => folded(entry) === folded(name)) ?? name);
  };
  const lstat = async (path: string, options: object) => real.lstat(await found(path), options);
  return { ...real, lstat };
});

const COMPOSED = 'caf\u00e9';
const DECOMPOSED = 'cafe\u0301';

test.each([
  ['web', 'WEB'],
  [COMPOSED, DECOMPOSED],
  [DECOMPOSED, COMPOSED],
  ['12', '12\u00ad'],
  ['12\u200d', '12'],
  ['\u6771\u4eac', '\u6771\u200b\u4eac'],
  ['\uf900', '\u8c48'],
])('%j and %j are one name: neither stack nor snapshot is taken for the other', async (name, other) => {
  const host = await Host.in();
  const { registry } = host;
  const image = join(host.root, 'image.ext4');
  await makeExt4Image(image, 16 * MiB);
  const published = await registry.publishStack(name, image);
  const collides = (call: Promise<unknown>) => rejection(call, 'STACK_NAME_COLLISION');
  await collides(registry.publishStack(other, image, { replace: true }));
  await collides(registry.stack(other));
  await collides(registry.cloneForVm('vm-1', other, { writable: true }));
  await collides(registry.removeStack(other, { force: true }));
  expect(await registry.stacks()).toMatchObject([{ name, sha256: published.sha256 }]);

  await registry.cloneForVm('vm-1', name, { writable: true });
  await registry.snapshotSlot('vm-1', name);
  const confused = (call: Promise<unknown>) => rejection(call, 'SNAPSHOT_NAME_COLLISION');
  await confused(registry.snapshotSlot('vm-1', other));
  await confused(registry.restoreSnapshot(other, 'vm-2'));
  await confused(registry.verifySnapshot(other));
  await confused(registry.removeSnapshot(other));
  expect(await registry.verifySnapshot(name)).toMatchObject({ name });
  expect(await registry.removeSnapshot(name)).toBe(true);
  expect(await registry.removeStack(name, { force: true })).toBe(true);
});
