// A store that others work with at the same moment, under this name or another.
import { execFileSync } from 'node:child_process';
import { link, mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, expect, onTestFinished, test } from 'vitest';
import { exists } from '../../fixtures/files.js';
import { lacks, lacksRoot } from '../../fixtures/tools.js';
import { cliError, cliJson } from '../run-cli.js';
import { create, ext4Host, unmount } from './store-host.js';

beforeEach(({ skip }) => {
  const missing = lacksRoot() ?? lacks('mkfs.xfs', 'mke2fs');
  if (missing) skip(missing);
});

test('a mounted store is known by its other names', { timeout: 60_000 }, async () => {
  const host = await ext4Host();
  await create(host, '--sparse');
  await cliJson(host, ['clone', 'vm-1', 'debian', '--writable']);
  const [bound, linked] = [join(host.root, 'bound'), join(host.root, 'linked.img')];
  await mkdir(bound);
  execFileSync('mount', ['--bind', host.root, bound]);
  onTestFinished(() => unmount(bound));
  await link(host.image, linked);
  const inUse = await open(host.slot('vm-1').image, 'r+');
  for (const image of [join(bound, 'store.img'), linked]) {
    expect(await cliJson(host, ['store', 'status', image])).toMatchObject({ mountPoint: host.clonesDir });
    for (const command of [['check'], ['mount', '--mount', join(host.root, 'm')], ['rm', '--force']]) {
      expect(await cliError(host, ['store', ...command, image])).toBe('STORE_IN_USE 4');
    }
  }
  await inUse.close();
  expect(await exists(host.image)).toBe(true);
  expect(await cliJson(host, ['store', 'grow', linked, '400M'])).toMatchObject({ slots: 1 });
});
