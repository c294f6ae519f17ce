// What doctor says of OpenZFS by its version and its settings, from files as /sys/module/zfs has them.
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { zfsFindings } from '../../src/cli/doctor/zfs.js';
import { Host } from '../fixtures/host.js';

const SETTINGS = { zfs_bclone_enabled: 1, zfs_bclone_wait_dirty: 0, zfs_dmu_offset_next_sync: 1 };

async function findingsOf(version: string, settings: Record<string, number>, reflinks: boolean) {
  const module = (await Host.in()).root;
  await mkdir(join(module, 'parameters'));
  await writeFile(join(module, 'version'), `${version}\n`);
  for (const [name, value] of Object.entries({ ...SETTINGS, ...settings }))
    await writeFile(join(module, 'parameters', name), `${value}\n`);
  const findings = await zfsFindings({ module, pool: 'tank', reflinks });
  return findings.map(({ fix, ...finding }) => ({ ...finding, fix: fix?.replace(module, 'MODULE') }));
}

test.each([
  ['2.2.0-1', {}, true, 'fail', /2\.2\.0 and 2\.2\.1 can corrupt files/, /apt-get upgrade/],
  ['2.2.1-0york1~22.04', {}, false, 'fail', /2\.2\.2 is the cure/, /apt-get upgrade/],
  ['2.1.11-1', {}, false, 'warn', /shares no blocks before 2\.2/, /apt-get upgrade/],
  [
    '2.2.2-1',
    { zfs_bclone_enabled: 0 },
    false,
    'warn',
    /zfs_bclone_enabled is 0/,
    /tee MODULE.*zfs_bclone_enabled$/,
  ],
  ['2.3.2-2', {}, false, 'warn', /in the pool tank/, /zpool set feature@block_cloning=enabled tank$/],
  [
    '2.3.2-2',
    { zfs_dmu_offset_next_sync: 0 },
    true,
    'warn',
    /in the last seconds is copied/,
    /tee MODULE.*zfs_bclone_wait_dirty$/,
  ],
  ['2.3.2-2', {}, true, 'ok', /^OpenZFS 2\.3\.2-2$/, undefined],
  [
    '2.10.0',
    { zfs_bclone_wait_dirty: 1, zfs_dmu_offset_next_sync: 0 },
    true,
    'ok',
    /^OpenZFS 2\.10\.0$/,
    undefined,
  ],
] as const)('OpenZFS %s, %o, reflinks %s: %s', async (version, settings, reflinks, status, detail, fix) => {
  expect(await findingsOf(version, settings, reflinks)).toEqual([
    {
      check: 'zfs',
      status,
      detail: expect.stringMatching(detail),
      fix: fix === undefined ? undefined : expect.stringMatching(fix),
    },
  ]);
});
