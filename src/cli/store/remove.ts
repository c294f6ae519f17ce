// Removes a store. Without force it must be empty.
import { type FileHandle, realpath } from 'node:fs/promises';
import { RootfsError } from '../../index.js';
import { isMissing } from '../../system/is-missing.js';
import { mountOfImage, mountsOfImage, requireUnmounted } from './find-store.js';
import { kindOf } from './kinds.js';
import { requireNamed, whileImageLocked } from './lock.js';
import { mountUnlocked, unmount, withMounted } from './mounting.js';
import { userDataIn } from './status.js';
import { requirePrograms, requireRoot } from './store-error.js';
import { allOrNothing, Undo } from './undo.js';
import { removeUnfinished, unlinkNamed } from './unfinished.js';

/** Returns what was removed: behind a symbolic link, the image. */
export async function removeStore(path: string, force: boolean, signal: AbortSignal): Promise<string> {
  requireRoot('removing a store');
  await requirePrograms('flock', 'mount', 'umount');
  // Of a create that was killed there may be no image yet.
  const image = await realpath(path).catch(() => path);
  if ((await removeUnfinished(image, signal)) && (await isMissing(image))) return image;
  await whileImageLocked(image, signal, (file) =>
    allOrNothing(async (undo) => {
      const kind = await kindOf(image);
      await requireOneName(image, file);
      const mounts = await mountsOfImage(image);
      const [first, second] = mounts;
      if (second !== undefined) {
        const folders = mounts.map(({ mountPoint }) => mountPoint).join(' and on ');
        const words = `${image} is mounted on ${folders}: unmount all but one`;
        throw new RootfsError('STORE_IN_USE', words, { path: image });
      }
      if (first !== undefined) {
        const { mountPoint } = first;
        if (!force) requireEmpty(image, await userDataIn(mountPoint));
        signal.throwIfAborted();
        undo.add(async () => {
          await requireNamed(image, file);
          if ((await mountOfImage(image)) !== undefined) return;
          await mountUnlocked(image, kind, mountPoint, new Undo(), new AbortController().signal);
        });
        // The kernel refuses while a VM has an image open, even with --force.
        await unmount(mountPoint);
      }
      // Another mount namespace may have it as well, and a clone may have been made meanwhile.
      await requireUnmounted(image);
      if (!force) requireEmpty(image, await withMounted(image, kind, ['ro'], signal, userDataIn));
      await unlinkNamed(image, file);
    }),
  );
  return image;
}

/** Under another name, all that is in it would still be there. */
async function requireOneName(image: string, file: FileHandle): Promise<void> {
  const { nlink } = await file.stat();
  if (nlink === 1) return;
  const words = `${image} has ${nlink} names (hard links): remove all but one, find -samefile finds them`;
  throw new RootfsError('STORE_IN_USE', words, { path: image });
}

function requireEmpty(image: string, entries: readonly string[]): void {
  if (entries.length === 0) return;
  const some = entries.slice(0, 3).join(', ') + (entries.length > 3 ? ', …' : '');
  throw new RootfsError(
    'STORE_NOT_EMPTY',
    `${image} is not empty, it holds ${some}: release its clones, remove its snapshots and move other files away, ` +
      'or give --force',
    { path: image },
  );
}
