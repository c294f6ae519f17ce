// Locks an image, or the folder that it is to be mounted on, against other store commands. The kernel drops the lock
// when this process ends, however it ends.
import type { BigIntStats } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { RootfsError } from '../../index.js';
import { makeFolders } from '../../system/make-folders.js';
import { imageFile } from './image-file.js';
import { storeProgramFailed, tryProgram } from './store-error.js';

// Reserving space by writing zeros takes minutes. A user who does not want to wait can interrupt.
const LIMIT_SECONDS = 600;
// The exit status of flock(1) if others had the lock all that time.
const BUSY = 75;

// What others can open can be locked by them as well: what is locked in its place is root's alone.
const LOCKS = '/run/microvm-rootfs';

/** Throws `STORE_NOT_FOUND` if the name is another file's when the lock is there. */
export async function whileImageLocked<T>(
  image: string,
  signal: AbortSignal | undefined,
  work: (file: FileHandle) => Promise<T>,
): Promise<T> {
  const file = await openForLock(image);
  try {
    return await whileNamedLocked(image, file, signal, work);
  } finally {
    await file.close();
  }
}

export async function whileNamedLocked<T>(
  path: string,
  file: FileHandle,
  signal: AbortSignal | undefined,
  work: (file: FileHandle) => Promise<T>,
): Promise<T> {
  return whileInodeLocked(path, await file.stat({ bigint: true }), signal, async () => {
    await requireNamed(path, file);
    return work(file);
  });
}

async function openForLock(image: string): Promise<FileHandle> {
  await imageFile(image);
  try {
    // For writing, since a grow that fails cuts off what it reserved.
    return await open(image, 'r+');
  } catch (error) {
    // A copy on a read-only file system can be checked.
    if ((error as NodeJS.ErrnoException).code !== 'EROFS') throw error;
    return open(image, 'r');
  }
}

/** Before anything that cannot be undone: a program that ignores the lock can give the name to another file. */
export async function requireNamed(image: string, file: FileHandle): Promise<void> {
  const ours = await file.stat({ bigint: true });
  const named = await stat(image, { bigint: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (named?.dev === ours.dev && named.ino === ours.ino) return;
  const words = `the store ${image} was renamed or removed meanwhile: check what is there now, and try again`;
  throw new RootfsError('STORE_NOT_FOUND', words, { path: image });
}

/** Locks the folder itself, not what is mounted on it by then. */
export async function whileFolderLocked<T>(
  folder: string,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  return whileInodeLocked(folder, await stat(folder, { bigint: true }), signal, work);
}

async function whileInodeLocked<T>(
  path: string,
  inode: BigIntStats,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  const file = await openLock(path, inode);
  try {
    // A lock belongs to the open file, which flock(1) gets as its output, and which stays open here.
    const output = { fd: file.fd, read: async () => {} };
    const args = ['--exclusive', '--timeout', `${LIMIT_SECONDS}`, '--conflict-exit-code', `${BUSY}`, '1'];
    const exit = await tryProgram('flock', args, signal, { output });
    if (exit.status === BUSY) {
      const words = `another store command has been working on ${path} for ${LIMIT_SECONDS / 60} minutes`;
      throw new RootfsError('STORE_IN_USE', `${words}: end it, or try again later`, { path });
    }
    if (exit.status !== 0) throw storeProgramFailed('flock', exit, path);
    return await work();
  } finally {
    await file.close();
  }
}

async function openLock(path: string, { dev, ino }: BigIntStats): Promise<FileHandle> {
  try {
    await makeFolders(LOCKS, 0o700);
    return await open(join(LOCKS, `${dev}-${ino}`), 'a', 0o600);
  } catch (error) {
    throw new RootfsError(
      (error as NodeJS.ErrnoException).code ?? 'EACCES',
      `${LOCKS} cannot hold the lock of ${path}: let this command write there (in a unit of systemd: ` +
        'ReadWritePaths=/run)',
      { path: LOCKS, cause: error },
    );
  }
}
