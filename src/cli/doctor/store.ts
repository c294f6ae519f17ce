import { statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { RootfsConfig } from '../../index.js';
import { isMissing } from '../../system/is-missing.js';
import { nearestExisting } from '../mounts.js';
import { asRoot } from '../shell-words.js';
import { formatSize } from '../sizes.js';
import { mountOfImage, storeOf } from '../store/find-store.js';
import { KINDS, kindOf } from '../store/kinds.js';
import { requireFreeMountPoint, requireOutside } from '../store/mounting.js';
import { type Finding, ok, warn } from './finding.js';

/** Whether the host's disk can fill up beneath a store that holds the clones folder. */
export async function reservedStore({ clonesDir }: RootfsConfig): Promise<Finding[]> {
  const store = await storeOf(clonesDir);
  if (store === undefined) return [];
  const { image, sizeBytes, allocatedBytes } = store;
  const text = `${image}, ${formatSize(sizeBytes)}`;
  if (allocatedBytes >= sizeBytes) return [ok('store', `${text}, all of it reserved on its disk`)];
  const owed = formatSize(sizeBytes - allocatedBytes);
  const fix = asRoot('fallocate', '--length', `${sizeBytes}`, image);
  return [
    warn(
      'store',
      `${text}, ${owed} of it not reserved: if its disk fills up, clones lose what is written`,
      fix,
    ),
  ];
}

const IMAGE = '/var/lib/microvm/store.img';
const [MiB, GiB] = [1024 ** 2, 1024 ** 3];

/** A command that works here: a store needs a free name, a free folder, and its whole space at once. */
export async function storeCommand({ clonesDir }: RootfsConfig): Promise<string> {
  const mounted = await mountOfImage(IMAGE).catch(() => undefined);
  if (mounted !== undefined)
    return `# a store is mounted on ${mounted.mountPoint}: make that, or a folder in it, the clones folder`;
  const folder = await firstThat(canBeMountedOn, [
    clonesDir,
    `${clonesDir}-on-store`,
    `${clonesDir}-on-store-2`,
  ]);
  const then = folder === clonesDir ? '' : ` # then make ${folder} the clones folder`;
  const isStore = await kindOf(IMAGE).then(
    () => true,
    () => false,
  );
  if (isStore) return asRoot('microvm-rootfs', 'store', 'mount', IMAGE, '--mount', folder) + then;
  const image = await firstThat(isMissing, [
    IMAGE,
    ...[2, 3, 4].map((number) => IMAGE.replace('.img', `-${number}.img`)),
  ]);
  const { bavail, bsize } = await statfs(await nearestExisting(dirname(image)));
  const half = (bavail * bsize) / 2;
  const { minimumBytes } = KINDS.xfs;
  if (half < minimumBytes) {
    const least = formatSize(2 * minimumBytes);
    return `# make room for a store: ${dirname(image)} has ${formatSize(2 * half)} free, and should have ${least}`;
  }
  const size = half < GiB ? `${Math.floor(half / MiB)}M` : `${Math.min(100, Math.floor(half / GiB))}G`;
  const create = asRoot('microvm-rootfs', 'store', 'create', image, '--size', size, '--mount', folder);
  return `${asRoot('mkdir', '-p', dirname(image))} && ${create}${then}`;
}

/** The last, if none does: its command then says why. */
async function firstThat(
  suits: (path: string) => Promise<boolean>,
  paths: readonly [string, ...string[]],
): Promise<string> {
  const [path, next, ...more] = paths;
  if (next === undefined || (await suits(path).catch(() => false))) return path;
  return firstThat(suits, [next, ...more]);
}

async function canBeMountedOn(folder: string): Promise<boolean> {
  await requireOutside(IMAGE, folder);
  await requireFreeMountPoint(folder);
  return true;
}
