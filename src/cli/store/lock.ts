// Locks an image, or the folder that it is to be mounted on, against other store commands. The kernel drops the lock
// when this process ends, however it ends.
import { type FileHandle, open } from 'node:fs/promises';
import { RootfsError } from '../../index.js';
import { imageFile } from './image-file.js';
import { programFailed, tryProgram } from './store-error.js';

// Reserving space by writing zeros takes minutes. Whoever does not want to wait can interrupt.
const LIMIT_SECONDS = 600;
// Of flock(1), if others had the lock all that time.
const BUSY = 75;

export async function whileImageLocked<T>(
  image: string,
  signal: AbortSignal | undefined,
  work: (file: FileHandle) => Promise<T>,
): Promise<T> {
  await imageFile(image);
  // Open for writing, without which NFS gives no such lock.
  return whileLocked(image, 'r+', signal, async (file) => {
    // `store rm` may have removed it meanwhile.
    const { nlink } = await file.stat();
    if (nlink === 0) throw new RootfsError('STORE_NOT_FOUND', `there is no store ${image}`, { path: image });
    return work(file);
  });
}

/** Of the folder itself, not of what is mounted on it by then. */
export function whileFolderLocked<T>(
  folder: string,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  return whileLocked(folder, 'r', signal, work);
}

async function whileLocked<T>(
  path: string,
  flags: 'r' | 'r+',
  signal: AbortSignal | undefined,
  work: (file: FileHandle) => Promise<T>,
): Promise<T> {
  const file = await open(path, flags);
  try {
    // A lock belongs to the open file, which flock(1) gets as its output, and which stays open here.
    const output = { fd: file.fd, read: async () => {} };
    const args = ['--exclusive', '--timeout', `${LIMIT_SECONDS}`, '--conflict-exit-code', `${BUSY}`, '1'];
    const { exit } = await tryProgram('flock', args, signal, { output });
    if (exit.status === BUSY) {
      const words = `another store command has been working on ${path} for ${LIMIT_SECONDS / 60} minutes`;
      throw new RootfsError('STORE_IN_USE', `${words}: end it, or try again later`, { path });
    }
    if (exit.status !== 0) throw programFailed('flock', exit, path);
    return await work(file);
  } finally {
    await file.close();
  }
}
