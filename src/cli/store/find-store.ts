// Finds which image is mounted where. The kernel knows; a record of our own could be wrong.
import { readdir, readFile, realpath, writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { RootfsError } from '../../index.js';
import { mountedOn, mounts } from '../mounts.js';
import { type ImageFile, imageFile } from './image-file.js';
import { STORE_KINDS, type StoreKind } from './kinds.js';

export interface MountedStore extends ImageFile {
  readonly image: string;
  readonly kind: StoreKind;
  readonly mountPoint: string;
  /** `/dev/loop0` */
  readonly device: string;
}

/** The store that is mounted on exactly this folder. */
export async function storeOn(folder: string): Promise<MountedStore | undefined> {
  const mount = await mountedOn(folder).catch(() => undefined);
  if (mount === undefined || !/^\/dev\/loop\d+$/.test(mount.source)) return undefined;
  const image = await backingFile(basename(mount.source));
  if (image === undefined) return undefined;
  const kind = mount.type;
  if (kind !== 'xfs' && kind !== 'btrfs') return undefined;
  try {
    return { image, kind, mountPoint: mount.mountPoint, device: mount.source, ...(await imageFile(image)) };
  } catch {
    // In another mount namespace, or removed.
    return undefined;
  }
}

/** Where an image is mounted; undefined if it is not. */
export async function mountOfImage(image: string): Promise<MountedStore | undefined> {
  const file = await imageFile(image);
  const real = await realpath(image);
  const devices = await loopDevicesOf(real);
  const kinds: readonly string[] = STORE_KINDS;
  const mount = (await mounts()).find(({ source, type }) => devices.includes(source) && kinds.includes(type));
  if (mount === undefined) return undefined;
  // From the mount, because only root can read the image.
  const kind = mount.type as StoreKind;
  return { image: real, kind, mountPoint: mount.mountPoint, device: mount.source, ...file };
}

/** An image that is to be worked on while nobody has it. Throws `STORE_IN_USE`. */
export async function requireUnmounted(image: string): Promise<void> {
  const mounted = await mountOfImage(image);
  if (mounted !== undefined)
    throw new RootfsError('STORE_IN_USE', `${image} is mounted on ${mounted.mountPoint}: unmount it first`, {
      path: image,
    });
  const [device] = await loopDevicesOf(await realpath(image));
  if (device !== undefined)
    throw new RootfsError('STORE_IN_USE', `${device} still has ${image}: losetup --detach ${device}`, {
      path: image,
    });
}

export async function loopDevicesOf(realImage: string): Promise<string[]> {
  const names = (await readdir('/sys/block')).filter((name) => /^loop\d+$/.test(name));
  const files = await Promise.all(names.map(backingFile));
  return names.filter((_, index) => files[index] === realImage).map((name) => `/dev/${name}`);
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
