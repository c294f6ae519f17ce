// Creates a store, completely or not at all.
import { chmod, chown, constants, copyFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { RootfsError } from '../../index.js';
import { STATE_FOLDER } from '../../system/state-folder.js';
import { formatSize } from '../sizes.js';
import { requireUnmounted } from './find-store.js';
import { extendImageFile, writeInPlace } from './image-file.js';
import { KINDS, type StoreKind } from './kinds.js';
import { makeMountPoint, mountUnlocked, requireFreeMountPoint, requireOutside } from './mounting.js';
import { type StoreStatus, statusOfImage } from './status.js';
import { requirePrograms, requireRoot, runProgram } from './store-error.js';
import { allOrNothing } from './undo.js';
import { finish, unlinkNamed, whileUnfinished } from './unfinished.js';

interface NewStore {
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
  await whileUnfinished(image, signal, (unfinished, file) =>
    allOrNothing(async (undo) => {
      undo.add(() => unlinkNamed(unfinished, file));
      await writeInPlace(unfinished, signal);
      await extendImageFile(unfinished, sizeBytes, sparse, signal, image);
      await runProgram(program, [...args, unfinished], signal, image);
      undo.add(async () => {
        // What is written to a mounted store would be lost.
        await requireUnmounted(image);
        await unlinkNamed(image, file);
      });
      await finish(unfinished, image);
      await unlinkNamed(unfinished, file);
      await makeMountPoint(mountPoint, undo);
      const before = await stat(mountPoint);
      await mountUnlocked(image, kind, mountPoint, undo, signal);
      // As long as the root is root's: its owner could lay links.
      await requireReflinks(mountPoint);
      // Keep the owner and mode of the folder.
      await chown(mountPoint, before.uid, before.gid);
      await chmod(mountPoint, before.mode & 0o7777);
    }),
  );
  return statusOfImage(image, mountPoint);
}

async function requireReflinks(folder: string): Promise<void> {
  const probe = join(folder, `${STATE_FOLDER}-probe`);
  try {
    await writeFile(probe, 'probe', { flag: 'wx' });
    const { COPYFILE_EXCL, COPYFILE_FICLONE_FORCE } = constants;
    await copyFile(probe, `${probe}-reflink`, COPYFILE_EXCL | COPYFILE_FICLONE_FORCE);
  } finally {
    for (const path of [probe, `${probe}-reflink`]) await rm(path, { force: true });
  }
}
