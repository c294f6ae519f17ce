// Paths that a caller names, in folders that a VMM or another user may be able to write to: a jail, a VM's memory file.
import { type GuardedFile, type NativeGuardedFolder, native } from '../addon/native.js';
import { failedWith, isSystemError, RootfsError } from '../system/errors.js';

/**
 * Runs `work` with the folder of `path`, opened once, and the name in it. Rejects with `UNSAFE_PATH` where another user
 * may have made a link on the way.
 */
export async function inFolderOf<T>(
  path: string,
  work: (folder: NativeGuardedFolder, name: string) => Promise<T>,
): Promise<T> {
  const slash = path.lastIndexOf('/');
  const folderPath = slash < 0 ? '.' : path.slice(0, slash) || '/';
  const name = path.slice(slash + 1);
  if (name === '' || name === '.' || name === '..')
    throw new RootfsError('INVALID_ARGUMENT', `${path} names a folder: give the path of a file`, { path });
  const folder = await native()
    .openGuardedFolder(folderPath, false)
    .catch((error: unknown) => {
      throw asUnsafePath(path, error);
    });
  try {
    return await work(folder, name);
  } finally {
    native().dispose(folder);
  }
}

/**
 * A regular file of root, of this process's user, or of `owner`. Rejects with `UNSAFE_PATH` for another owner's, for a
 * symbolic link, and where another user may have made a link on the way.
 */
export async function openFileOf(path: string, owner: number): Promise<GuardedFile> {
  let file: GuardedFile;
  try {
    file = await native().openGuardedFile(path);
  } catch (error) {
    if (failedWith(error, 'EINVAL'))
      throw new RootfsError('INVALID_ARGUMENT', `${path} is not a regular file`, { path, cause: error });
    throw asUnsafePath(path, error);
  }
  const { uid, identity } = file.info;
  const isOurs = uid === 0 || uid === process.geteuid?.();
  // Whoever can write to a folder can put a second name of another's file there, unless fs.protected_hardlinks is on.
  const mayBeLinked = !file.guarded && identity.links > 1;
  if (isOurs ? !mayBeLinked : uid === owner) return file;
  native().dispose(file.source);
  const why = isOurs
    ? `belongs to user ${uid} and has ${identity.links} names, one of them in a folder that others can write to`
    : `belongs to user ${uid}, not to user ${owner}, root or the user of this process`;
  throw new RootfsError('UNSAFE_PATH', `${path} ${why}: copy it to a file of its own`, { path });
}

function asUnsafePath(path: string, error: unknown): unknown {
  if (!failedWith(error, 'ELOOP') || !isSystemError(error)) return error;
  const link = error.path ?? path;
  return new RootfsError(
    'UNSAFE_PATH',
    `${path} is refused: ${link} is a symbolic link or leads through one (or through "..") that another ` +
      'user may have made; give a path without links',
    { path: link, cause: error },
  );
}
