// What store check calls damaged, and what it does not.
import { execFileSync } from 'node:child_process';
import { copyFile, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { EXIT } from '../../../src/cli/exit-codes.js';
import type { StoreKind } from '../../../src/cli/store/kinds.js';
import { exists } from '../../fixtures/files.js';
import { MiB } from '../../fixtures/images.js';
import { cli, cliError, cliJson } from '../run-cli.js';
import { create, ext4Host, needStores, unmount, withProgram } from './store-host.js';

needStores('mkfs.btrfs');

test('a copy of a mounted store is whole', async () => {
  const host = await ext4Host();
  await create(host, '--sparse');
  const copy = join(host.root, 'copy.img');
  execFileSync('sync', ['--file-system', host.clonesDir]);
  await copyFile(host.image, copy);
  expect(await cliJson(host, ['store', 'check', copy])).toMatchObject({ clean: true });
});

test.each<StoreKind>(['xfs', 'btrfs'])('an image of %s that was cut short is damaged', async (fs) => {
  const host = await ext4Host();
  await create(host, '--sparse', '--fs', fs);
  unmount(host.clonesDir);
  await truncate(host.image, 120 * MiB);
  expect(await cliError(host, ['store', 'check', host.image])).toBe('STORE_DAMAGED 1');
});

test.each([
  ['mount', 'echo "mount: /x: failed to setup loop device for x." >&2; exit 32', 'STORE_FAILED 1'],
  ['mount', 'echo "mount: /x: unknown filesystem type." >&2; exit 32', 'STORE_FAILED 1'],
  // EINVAL, and the checker finds nothing.
  [
    'mount',
    'echo "mount: /x: wrong fs type, bad option, bad superblock on x." >&2; exit 32',
    'STORE_FAILED 1',
  ],
  [
    'mount',
    'echo "mount: /x: mount(2) system call failed: Structure needs cleaning." >&2; exit 32',
    'STORE_DAMAGED 1',
  ],
  ['xfs_repair', 'kill -KILL $$', 'STORE_FAILED 1'],
  ['xfs_repair', 'echo "xfs_repair: Cannot allocate memory" >&2; exit 1', 'STORE_FAILED 1'],
])('%s: %s', async (program, script, error) => {
  const host = await ext4Host();
  await create(host, '--sparse');
  unmount(host.clonesDir);
  const PATH = await withProgram(host, program, script);
  expect(await cliError(host, ['store', 'check', host.image], { env: { PATH } })).toBe(error);
});

test('a TMPDIR in which nothing can be made is named', async () => {
  const host = await ext4Host();
  await create(host, '--sparse');
  unmount(host.clonesDir);
  const env = { TMPDIR: join(host.root, 'missing') };
  const { code, stderr } = await cli(host, ['store', 'check', host.image], { env });
  expect([code, stderr]).toEqual([EXIT.notFound, expect.stringMatching(/ENOENT: .*\/missing.*TMPDIR/)]);
  expect(await cliError(host, ['store', 'rm', host.image], { env })).toBe('ENOENT 3');
  expect(await exists(host.image)).toBe(true);
});
