// Mounts and unmounts a store's file system.
import { mkdtemp, readdir, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { RootfsError } from '../../index.js';
import { makeFolders } from '../../system/make-folders.js';
import { mountedOn } from '../mounts.js';
import { forbidDiscard, mountOfImage } from './find-store.js';
import { imageFile } from './image-file.js';
import type { StoreKind } from './kinds.js';
import { runProgram } from './store-error.js';
import type { Undo } from './undo.js';

/** Throws unless nothing would be hidden by a mount there. */
export async function requireFreeMountPoint(folder: string): Promise<void> {
  let names: string[];
  try {
    names = await readdir(folder);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return;
    if (code !== 'ENOTDIR') throw error;
    throw new RootfsError('MOUNT_POINT_REFUSED', `${folder} is no folder`, { path: folder, cause: error });
  }
  const mounted = await mountedOn(folder);
  if (mounted !== undefined) {
    const what = `${mounted.source} (${mounted.type}) is mounted on ${folder} already`;
    throw new RootfsError('MOUNT_POINT_IN_USE', what, { path: folder });
  }
  if (names.length > 0) {
    const why = `${folder} is not empty: what is in it would be hidden. Release its clones, or choose another folder`;
    throw new RootfsError('MOUNT_POINT_NOT_EMPTY', why, { path: folder });
  }
}

/** With those above it. What was made is taken back if something fails later. */
export async function makeMountPoint(folder: string, undo: Undo): Promise<void> {
  const first = await makeFolders(folder);
  if (first === undefined) return;
  undo.add(async () => {
    for (let made = folder; ; made = dirname(made)) {
      await rmdir(made);
      if (made === first) return;
    }
  });
}

/** Deleted clones give their space back to the disk only where it was not reserved in the first place. */
export function mountOptions(reserved: boolean): string {
  return `loop,${reserved ? 'nodiscard' : 'discard'}`;
}

export async function mountStore(
  image: string,
  kind: StoreKind,
  folder: string,
  signal: AbortSignal,
): Promise<void> {
  const { allocatedBytes, sizeBytes } = await imageFile(image);
  const reserved = allocatedBytes >= sizeBytes;
  await runProgram('mount', ['-t', kind, '-o', mountOptions(reserved), image, folder], signal, image);
  if (!reserved) return;
  const mounted = await mountOfImage(image);
  if (mounted !== undefined) await forbidDiscard(mounted.device);
}

export async function unmount(folder: string): Promise<void> {
  // Not with the caller's signal: it must not stop half-way.
  await runProgram('umount', [folder], undefined, folder);
}

/** Runs `work` with the store on a folder of its own, for a look into it. */
export async function withMounted<T>(
  image: string,
  kind: StoreKind,
  options: readonly string[],
  work: (folder: string) => Promise<T>,
): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'microvm-rootfs-store-'));
  try {
    const all = ['loop', 'nodiscard', ...options].join(',');
    await runProgram('mount', ['-t', kind, '-o', all, image, folder], undefined, image);
    try {
      return await work(folder);
    } finally {
      await unmount(folder);
    }
  } finally {
    await rmdir(folder);
  }
}
