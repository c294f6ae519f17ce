// Finds which image is mounted where. The kernel knows; a record of our own could be wrong.
import { readdir, readFile, realpath, writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { RootfsError } from '../../index.js';
import { type Mount, mountOf, mounts, nearestExisting } from '../mounts.js';
import { type ImageFile, imageFile } from './image-file.js';
import { STORE_KINDS, type StoreKind } from './kinds.js';
import { tryProgram } from './store-error.js';

interface MountedStore extends ImageFile {
  readonly image: string;
  readonly kind: StoreKind;
  readonly mountPoint: string;
  /** `/dev/loop0` */
  readonly device: string;
}

/** The store that a folder lies in, or will be made in. */
export async function storeOf(folder: string): Promise<MountedStore | undefined> {
  const mount = await nearestExisting(folder)
    .then(mountOf)
    .catch(() => undefined);
  if (mount === undefined || !/^\/dev\/loop\d+$/.test(mount.source)) return undefined;
  const image = await backingFile(basename(mount.source));
  if (image === undefined) return undefined;
  const kind = mount.type;
  if (kind !== 'xfs' && kind !== 'btrfs') return undefined;
  try {
    const file = await imageFile(image);
    // Another file may have that name now, or in this mount namespace.
    if (!(await loopDevicesOf(image)).includes(mount.source)) return undefined;
    return { image, kind, mountPoint: mount.mountPoint, device: mount.source, ...file };
  } catch {
    // In another mount namespace, or removed.
    return undefined;
  }
}

/** Where an image is mounted; undefined if it is not. */
export async function mountOfImage(image: string): Promise<MountedStore | undefined> {
  const file = await imageFile(image);
  const real = await realpath(image);
  const all = await mountsOfImage(image);
  const mount = all.find(({ root }) => root === '/') ?? all[0];
  if (mount === undefined) return undefined;
  // From the mount, because only root can read the image.
  const kind = mount.type as StoreKind;
  return { image: real, kind, mountPoint: mount.mountPoint, device: mount.source, ...file };
}

/** All of them: it may be seen in several places. */
export async function mountsOfImage(image: string): Promise<Mount[]> {
  const devices = await loopDevicesOf(image);
  const kinds: readonly string[] = STORE_KINDS;
  return (await mounts()).filter(({ source, type }) => devices.includes(source) && kinds.includes(type));
}

// 50 ms each.
const TRIES = 20;

/** An image that is to be worked on while nobody has it. Throws `STORE_IN_USE`. */
export async function requireUnmounted(image: string): Promise<void> {
  for (let tries = 1; ; tries++) {
    const mounted = await mountOfImage(image);
    if (mounted !== undefined) {
      const words = `${image} is mounted on ${mounted.mountPoint}: unmount it first`;
      throw new RootfsError('STORE_IN_USE', words, { path: image });
    }
    const [device] = await loopDevicesOf(image);
    if (device === undefined) return;
    if (tries === TRIES) {
      const words = `${device} still has ${image}: end what has something open in it, or losetup --detach ${device}`;
      throw new RootfsError('STORE_IN_USE', words, { path: image });
    }
    // The kernel lets go of a loop device a moment after its last mount.
    await sleep(50);
  }
}

/** By device and inode, where root asks: a file has other names, by bind mounts and hard links. */
export async function loopDevicesOf(image: string): Promise<string[]> {
  const asked = ['--associated', image, '--noheadings', '--raw', '--output', 'NAME'];
  const exit = await tryProgram('losetup', asked, undefined).catch(() => undefined);
  if (exit?.status === 0) return exit.stdout.split('\n').filter((line) => line !== '');
  const real = await realpath(image);
  const names = (await readdir('/sys/block')).filter((name) => /^loop\d+$/.test(name));
  const files = await Promise.all(names.map(backingFile));
  return names.filter((_, index) => files[index] === real).map((name) => `/dev/${name}`);
}

/** How much of its image a loop device has. */
export async function capacityOf(device: string): Promise<number> {
  return Number(await readFile(`/sys/block/${basename(device)}/size`, 'utf8')) * 512;
}

async function backingFile(loop: string): Promise<string | undefined> {
  try {
    return (await readFile(`/sys/block/${loop}/loop/backing_file`, 'utf8')).replace(/\n$/, '');
  } catch {
    return undefined;
  }
}

/** `fstrim` would give back what was reserved. Where it cannot be forbidden, doctor sees what is missing. */
export async function forbidDiscard(device: string): Promise<void> {
  await writeFile(`/sys/block/${basename(device)}/queue/discard_max_bytes`, '0').catch(() => undefined);
}
