// Mounts an existing store again.
import { access, constants } from 'node:fs/promises';
import { RootfsError } from '../../index.js';
import { requireUnmounted } from './find-store.js';
import { kindOf } from './kinds.js';
import { makeMountPoint, mountStore, requireFreeMountPoint, requireOutside } from './mounting.js';
import { requirePrograms, requireRoot } from './store-error.js';
import { allOrNothing } from './undo.js';

export async function mountAgain(image: string, folder: string, signal: AbortSignal): Promise<void> {
  requireRoot('mounting a store');
  await requireUnmounted(image);
  const kind = await kindOf(image);
  await requireWritable(image);
  await requirePrograms('flock', 'mount');
  await requireOutside(image, folder);
  await requireFreeMountPoint(folder);
  await allOrNothing(async (undo) => {
    await makeMountPoint(folder, undo);
    await mountStore(image, kind, folder, undo, signal);
  });
}

/** Throws, with the system's code, for an image that mount(8) would mount read-only, without failing. */
async function requireWritable(image: string): Promise<void> {
  try {
    await access(image, constants.W_OK);
  } catch (error) {
    throw new RootfsError(
      (error as NodeJS.ErrnoException).code ?? 'EACCES',
      `${image} cannot be written to, so no clone could be made in the store: mount the file system that it lies on ` +
        'read-write, or take its immutable attribute away (chattr -i)',
      { path: image, cause: error },
    );
  }
}
