// The name that a store has while it is made. Under its own name, a killed `create` would leave a file that is not a
// store yet, and that no command takes.
import { type FileHandle, link, open, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { RootfsError } from '../../index.js';
import { isMissing } from '../../system/is-missing.js';
import { requireNamed, whileImageLocked, whileNamedLocked } from './lock.js';

function unfinishedName(image: string): string {
  return join(dirname(image), `.${basename(image)}.unfinished`);
}

/** Runs `make` with an empty file, which is locked. Throws `STORE_EXISTS` rather than touch what is there. */
export async function whileUnfinished<T>(
  image: string,
  signal: AbortSignal,
  make: (path: string, file: FileHandle) => Promise<T>,
): Promise<T> {
  const path = unfinishedName(image);
  await removeUnfinished(image, signal);
  if (!(await isMissing(image))) throw existsError(image);
  // Clones hold guests' data, so only the owner may read them.
  const file = await open(path, 'wx', 0o600).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error.code === 'EEXIST' ? existsError(path, error) : error;
    const folder = dirname(image);
    const words = `there is no folder ${folder}: make it first, or correct the path`;
    throw new RootfsError('ENOENT', words, { path: folder, cause: error });
  });
  try {
    return await whileNamedLocked(path, file, undefined, () => make(path, file));
  } catch (error) {
    // It is still there if it could not be locked.
    await unlinkNamed(path, file).catch(() => undefined);
    throw error;
  } finally {
    await file.close();
  }
}

/** Gives it the name of the store. Throws `STORE_EXISTS` if something else has taken that name. */
export async function finish(path: string, image: string): Promise<void> {
  // Unlike a rename, a link replaces nothing.
  await link(path, image).catch((error: NodeJS.ErrnoException) => {
    throw error.code === 'EEXIST' ? existsError(image, error) : error;
  });
}

/** Takes away what a killed `create` left; false if there is nothing. Waits for one that is at work. */
export async function removeUnfinished(image: string, signal: AbortSignal): Promise<boolean> {
  const path = unfinishedName(image);
  try {
    await whileImageLocked(path, signal, (file) => unlinkNamed(path, file));
    return true;
  } catch (error) {
    if (error instanceof RootfsError && error.code === 'STORE_NOT_FOUND') return false;
    throw error;
  }
}

export async function unlinkNamed(path: string, file: FileHandle): Promise<void> {
  await requireNamed(path, file);
  await unlink(path);
}

function existsError(path: string, cause?: unknown): RootfsError {
  const words = `${path} exists already: it is left as it is`;
  return new RootfsError('STORE_EXISTS', words, { path, cause });
}
