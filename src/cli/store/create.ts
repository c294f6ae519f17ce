// Creates a store, completely or not at all.
import { chmod, chown, constants, copyFile, rm, stat, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { RootfsError } from '../../index.js';
import { formatSize } from '../sizes.js';
import { requireUnmounted } from './find-store.js';
import { createImageFile, extendImageFile, writeInPlace } from './image-file.js';
import { KINDS, type StoreKind } from './kinds.js';
import { makeMountPoint, mountStore, requireFreeMountPoint, requireOutside } from './mounting.js';
import { type StoreStatus, statusOfImage } from './status.js';
import { requirePrograms, requireRoot, runProgram } from './store-error.js';
import { allOrNothing } from './undo.js';

export interface NewStore {
  readonly image: string;
  readonly sizeBytes: number;
  readonly kind: StoreKind;
  readonly mountPoint: string;
  readonly sparse: boolean;
}

export async function createStore(store: NewStore, signal: AbortSignal): Promise<StoreStatus> {
  const { image, sizeBytes, kind, mountPoint, sparse } = store;
  const { minimumBytes, make } = KINDS[kind];
  requireRoot('creating a store');
  if (sizeBytes < minimumBytes) {
    const least = `${kind} needs at least ${formatSize(minimumBytes)}`;
    throw new RootfsError('INVALID_ARGUMENT', `a store of ${formatSize(sizeBytes)} is too small: ${least}`);
  }
  const [program, ...args] = make;
  await requirePrograms(program, 'fallocate', 'flock', 'mount', 'umount');
  await requireOutside(image, mountPoint);
  await requireFreeMountPoint(mountPoint);
  await allOrNothing(async (undo) => {
    await createImageFile(image);
    undo.add(async () => {
      // What is written to a mounted store would be lost.
      await requireUnmounted(image);
      await unlink(image);
    });
    await writeInPlace(image, signal);
    await extendImageFile(image, sizeBytes, sparse, signal);
    await runProgram(program, [...args, image], signal, image);
    await makeMountPoint(mountPoint, undo);
    const before = await stat(mountPoint);
    await mountStore(image, kind, mountPoint, undo, signal);
    // Keep the owner and mode of the folder.
    await chown(mountPoint, before.uid, before.gid);
    await chmod(mountPoint, before.mode & 0o7777);
    await requireReflinks(mountPoint);
  });
  return statusOfImage(image);
}

async function requireReflinks(folder: string): Promise<void> {
  const probe = join(folder, '.microvm-rootfs-probe');
  try {
    await writeFile(probe, 'probe');
    await copyFile(probe, `${probe}-reflink`, constants.COPYFILE_FICLONE_FORCE);
  } finally {
    for (const path of [probe, `${probe}-reflink`]) await rm(path, { force: true });
  }
}
