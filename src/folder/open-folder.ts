// Opens a managed folder, and makes it if need be.

import { constants as files } from 'node:fs';
import { access, open } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import { type NativeFolder, native } from '../addon/native.js';
import { asRootfsError, failedWith, isSystemError, RootfsError } from '../system/errors.js';
import { makeFolders } from '../system/make-folders.js';
import { STATE_FOLDER } from '../system/state-folder.js';

/** The folder while it is open. */
export interface OpenFolder {
  readonly handle: NativeFolder;
  /** This process's own folder in staging; empty if the disk is too full for one, or read-only. */
  readonly sessionPath: string;
  /** Whether files in the folder can share blocks; undefined if trying it came to nothing: no space, or a busy ZFS. */
  reflinks: boolean | undefined;
}

export async function openFolder(path: string, what: string): Promise<OpenFolder> {
  try {
    const folder = await openOrMake(path);
    await closeToOthers(join(path, STATE_FOLDER)).catch(() => {}); // on a read-only disk it stays as it is
    return folder;
  } catch (error) {
    if (isSystemError(error) && failedWith(error, 'EEXIST', 'ENOTDIR', 'ELOOP')) {
      const found = error.path ?? path;
      const message = `opening the ${what} ${path}: ${found} is not a folder: move it away`;
      throw new RootfsError('CLONES_DIR_INVALID', message, { path: found, cause: error });
    }
    throw asRootfsError(`opening the ${what} ${path}`, error);
  }
}

async function openOrMake(path: string): Promise<OpenFolder> {
  try {
    return await native().openFolder(path);
  } catch (error) {
    if (!failedWith(error, 'ENOENT')) throw error;
    // VMMs reach their disks through this path.
    await makeFolders(path, 0o755);
    return await native().openFolder(path);
  }
}

/** Whoever restored it, or copied it, may have lost its mode. What is in it relies on that. */
async function closeToOthers(ours: string): Promise<void> {
  const folder = await open(ours, files.O_RDONLY | files.O_DIRECTORY | files.O_NOFOLLOW);
  try {
    const { mode, uid } = await folder.stat();
    if ((mode & 0o077) !== 0 && uid === process.geteuid?.()) await folder.chmod(0o700);
  } finally {
    await folder.close();
  }
}

export async function closeFolder(handle: NativeFolder | undefined): Promise<void> {
  if (handle === undefined) return;
  try {
    await native().closeFolder(handle);
  } finally {
    native().dispose(handle);
  }
}

export function hasStaging({ sessionPath }: OpenFolder): boolean {
  return sessionPath !== '';
}

/** Why nothing can be made in the folder. */
export async function noStagingError(what: string, path: string): Promise<RootfsError> {
  const isReadOnly = await access(path, files.W_OK).then(
    () => false,
    (error) => failedWith(error, 'EROFS'),
  );
  const code = isReadOnly ? 'EROFS' : 'ENOSPC';
  const why = isReadOnly
    ? 'its file system is mounted read-only: the kernel log tells whether the disk failed'
    : 'the disk or the quota is full. Release slots (that still works) or free space';
  return new RootfsError(code, `opening the ${what} ${path}: ${why}`, {
    errno: -constants.errno[code],
    syscall: 'mkdir',
    path,
  });
}
