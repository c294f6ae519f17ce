// Mounts and unmounts a store's file system.
import { readdir, realpath, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { RootfsError } from '../../index.js';
import { makeFolders, makeNewFolder } from '../../system/make-folders.js';
import { mountedOn, nearestExisting } from '../mounts.js';
import { forbidDiscard, loopDevicesOf, mountOfImage, requireUnmounted } from './find-store.js';
import { imageFile } from './image-file.js';
import { KINDS, type StoreKind } from './kinds.js';
import { whileFolderLocked, whileImageLocked } from './lock.js';
import { runToItsEnd, storeProgramFailed, tryProgram } from './store-error.js';
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
    throw new RootfsError('MOUNT_POINT_REFUSED', `${folder} is not a folder`, { path: folder, cause: error });
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

/** Throws if the image, which need not be there yet, would be hidden by its own mount. */
export async function requireOutside(image: string, folder: string): Promise<void> {
  const inside = await realpath(image).catch(async () =>
    join(await nearestExisting(dirname(image)), basename(image)),
  );
  const hidden = await nearestExisting(folder);
  // A folder that is not there yet holds nothing.
  if (hidden !== (await realpath(folder).catch(() => undefined))) return;
  if (!inside.startsWith(hidden === '/' ? '/' : `${hidden}/`)) return;
  const why = `${image} lies in ${folder}, and would be hidden by its own mount: choose another place for one of them`;
  throw new RootfsError('MOUNT_POINT_REFUSED', why, { path: folder });
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

/** Adds to `undo` what takes it back. Throws if something is mounted there, or uses the image, already. */
export async function mountStore(
  image: string,
  kind: StoreKind,
  folder: string,
  undo: Undo,
  signal: AbortSignal,
): Promise<void> {
  await whileImageLocked(image, signal, async () => {
    await requireUnmounted(image);
    await mountUnlocked(image, kind, folder, undo, signal);
  });
}

/** The caller has locked the image, and knows that it is not mounted. */
export async function mountUnlocked(
  image: string,
  kind: StoreKind,
  folder: string,
  undo: Undo,
  signal: AbortSignal,
): Promise<void> {
  const { allocatedBytes, sizeBytes } = await imageFile(image);
  const reserved = allocatedBytes >= sizeBytes;
  // -w: rather not at all than read-only.
  const args = ['-w', '-t', kind, '-o', mountOptions(reserved), image, folder];
  await whileFolderLocked(folder, signal, async () => {
    await requireFreeMountPoint(folder);
    signal.throwIfAborted();
    // Whatever becomes of mount(8), the kernel knows what it has done.
    undo.add(async () => {
      const devices = await loopDevicesOf(image);
      const mounted = await mountedOn(folder);
      if (mounted !== undefined && devices.includes(mounted.source)) await unmount(folder);
    });
    await runToItsEnd('mount', args, signal, image);
  });
  if (!reserved) return;
  const mounted = await mountOfImage(image);
  if (mounted !== undefined) await forbidDiscard(mounted.device);
}

/** Not with the caller's signal: it must not stop half-way. Nor does it if somebody kills umount(8). */
export async function unmount(folder: string, ...options: readonly string[]): Promise<void> {
  for (let tries = 1; ; tries++) {
    const exit = await tryProgram('umount', [...options, folder], undefined);
    if (exit.status === 0) return;
    if (exit.status !== null || tries === 3) throw storeProgramFailed('umount', exit, folder);
    if ((await mountedOn(folder)) === undefined) return;
  }
}

/**
 * Runs `work` with the store on a folder of its own, for a look into it. It may be a copy of one that is mounted. An
 * abort is heeded when it is mounted, and it is unmounted then.
 */
export async function withMounted<T>(
  image: string,
  kind: StoreKind,
  options: readonly string[],
  signal: AbortSignal,
  work: (folder: string) => Promise<T>,
): Promise<T> {
  signal.throwIfAborted();
  const outer = await makeNewFolder(join(tmpdir(), 'microvm-rootfs-store-')).catch((error) => {
    const words = `no folder to mount ${image} on can be made in ${tmpdir()}: set TMPDIR to one that is writable`;
    throw new RootfsError(error.code, words, { path: tmpdir(), cause: error });
  });
  // The root of a store has a mode of its own: what keeps others out is the folder around it.
  const folder = join(outer, 'store');
  try {
    await makeFolders(folder, 0o700);
    const all = ['loop', 'nodiscard', 'nosuid', 'nodev', 'noexec', ...KINDS[kind].lookOptions, ...options];
    try {
      await runToItsEnd('mount', ['-t', kind, '-o', all.join(','), image, folder], signal, image);
      return await work(folder);
    } finally {
      // It may be mounted although mount(8) failed, or was killed.
      if ((await mountedOn(folder)) !== undefined) await endLook(image, folder);
    }
  } finally {
    await rmdir(folder).finally(() => rmdir(outer));
  }
}

/** Root may have opened something in it meanwhile: an indexer, or a scanner for viruses. */
async function endLook(image: string, folder: string): Promise<void> {
  try {
    await unmount(folder);
  } catch (error) {
    if (!(error instanceof RootfsError && error.code === 'STORE_IN_USE')) throw error;
    // The kernel unmounts it when that is closed; a mount that stayed would stop later commands for good.
    await unmount(folder, '--lazy');
    // As long as anything has it open, it must be neither checked nor removed.
    await requireUnmounted(image);
  }
}
