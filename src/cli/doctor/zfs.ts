// What is known of OpenZFS: versions that are no good for clones, and settings that keep it from sharing blocks.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { RootfsConfig } from '../../index.js';
import { mountOf, nearestExisting } from '../mounts.js';
import { asRoot, shellWord } from '../shell-words.js';
import { type Finding, fail, ok, warn } from './finding.js';

interface Zfs {
  /** The folder of the module, `/sys/module/zfs`. */
  readonly module: string;
  readonly pool: string;
  /** Whether blocks were shared when it was tried. */
  readonly reflinks: boolean;
}

export async function zfsBelow({ clonesDir }: RootfsConfig, reflinks: boolean): Promise<Finding[]> {
  const mount = await nearestExisting(clonesDir)
    .then(mountOf)
    .catch(() => undefined);
  if (mount?.type !== 'zfs') return [];
  const [pool = ''] = mount.source.split('/');
  return zfsFindings({ module: '/sys/module/zfs', pool, reflinks });
}

export async function zfsFindings({ module, pool, reflinks }: Zfs): Promise<Finding[]> {
  const setting = (name: string) => read(join(module, 'parameters', name));
  const version = (await read(join(module, 'version'))) ?? 'of unknown version';
  const [major = 0, minor = 0, patch = 0] = version.split('.').map((part) => Number.parseInt(part, 10));
  const what = `OpenZFS ${version}`;
  if (major === 2 && minor === 2 && patch < 2) {
    const why = `${what}: 2.2.0 and 2.2.1 can corrupt files, above all such as share blocks; 2.2.2 is the cure`;
    return [fail('zfs', why, asRoot('apt-get', 'upgrade'))];
  }
  if (major < 2 || (major === 2 && minor < 2)) {
    return [warn('zfs', `${what}: shares no blocks before 2.2`, asRoot('apt-get', 'upgrade'))];
  }
  const set = (name: string) => `echo 1 | ${asRoot('tee', join(module, 'parameters', name))}`;
  if ((await setting('zfs_bclone_enabled')) === '0') {
    return [
      warn('zfs', `${what}: zfs_bclone_enabled is 0, so no blocks are shared`, set('zfs_bclone_enabled')),
    ];
  }
  if (!reflinks) {
    const fix = asRoot('zpool', 'set', 'feature@block_cloning=enabled', pool);
    return [
      warn(
        'zfs',
        `${what}: no blocks are shared in the pool ${shellWord(pool)}; it may lack the feature`,
        fix,
      ),
    ];
  }
  const waits = [await setting('zfs_bclone_wait_dirty'), await setting('zfs_dmu_offset_next_sync')];
  if (waits.every((wait) => wait === '0')) {
    const why = `${what}: what was written in the last seconds is copied, not shared`;
    return [warn('zfs', why, set('zfs_bclone_wait_dirty'))];
  }
  return [ok('zfs', what)];
}

async function read(path: string): Promise<string | undefined> {
  return readFile(path, 'utf8').then(
    (text) => text.trim(),
    () => undefined,
  );
}
