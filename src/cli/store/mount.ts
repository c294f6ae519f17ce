// Mounts an existing store again.

import { requireUnmounted } from './find-store.js';
import { kindOf } from './kinds.js';
import { makeMountPoint, mountStore, requireFreeMountPoint, requireOutside } from './mounting.js';
import { type StoreStatus, statusOfImage } from './status.js';
import { requirePrograms, requireRoot } from './store-error.js';
import { allOrNothing } from './undo.js';

export async function mountAgain(image: string, folder: string, signal: AbortSignal): Promise<StoreStatus> {
  requireRoot('mounting a store');
  await requireUnmounted(image);
  const kind = await kindOf(image);
  await requirePrograms('flock', 'mount');
  await requireOutside(image, folder);
  await requireFreeMountPoint(folder);
  await allOrNothing(async (undo) => {
    await makeMountPoint(folder, undo);
    await mountStore(image, kind, folder, undo, signal);
  });
  return statusOfImage(image);
}
