// Removes a store. Without force it must be empty.
import { unlink } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { RootfsError } from '../../index.js';
import { mountOfImage, requireUnmounted } from './find-store.js';
import { imageFile } from './image-file.js';
import { kindOf } from './kinds.js';
import { unmount, withMounted } from './mounting.js';
import { userDataIn } from './status.js';
import { requireRoot } from './store-error.js';

export async function removeStore(image: string, force: boolean): Promise<void> {
  requireRoot('removing a store');
  await imageFile(image);
  const kind = await kindOf(image);
  const mounted = await mountOfImage(image);
  if (mounted === undefined) {
    await requireLetGo(image);
    if (!force)
      requireEmpty(image, await withMounted(image, kind, ['ro'], new AbortController().signal, userDataIn));
  } else {
    if (!force) requireEmpty(image, await userDataIn(mounted.mountPoint));
    // The kernel refuses while a VM has an image open, even with --force.
    await unmount(mounted.mountPoint);
    // It may be mounted elsewhere as well, and a clone may have been made meanwhile.
    await requireUnmounted(image);
    if (!force)
      requireEmpty(image, await withMounted(image, kind, ['ro'], new AbortController().signal, userDataIn));
  }
  await unlink(image);
}

/** The kernel lets go of a loop device a moment after its last mount. */
async function requireLetGo(image: string): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      return await requireUnmounted(image);
    } catch (error) {
      if (tries === 20) throw error;
      await sleep(50);
    }
  }
}

function requireEmpty(image: string, entries: readonly string[]): void {
  if (entries.length === 0) return;
  const some = entries.slice(0, 3).join(', ') + (entries.length > 3 ? ', …' : '');
  throw new RootfsError(
    'STORE_NOT_EMPTY',
    `${image} is not empty, it holds ${some}: release its clones and remove its snapshots, or give --force`,
    { path: image },
  );
}
