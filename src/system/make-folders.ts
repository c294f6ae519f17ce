import { chmod, mkdir, mkdtemp, rmdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { failedWith } from './errors.js';
import { isMissing } from './is-missing.js';

/**
 * Makes a folder, and those above it that are missing. Returns the first that was made. Node's own `recursive` tries
 * for ever where nothing can be made although the parent is there, as in a folder that was removed while it is mounted,
 * and reports a full disk as ENOENT. Each that was made gets the mode, if one is given: a umask and a default ACL take
 * rights away from those whom the folder is for.
 */
export async function makeFolders(path: string, mode?: number): Promise<string | undefined> {
  try {
    return (await makeOne(path, mode)) ? path : undefined;
  } catch (error) {
    const parent = dirname(path);
    if (!failedWith(error, 'ENOENT') || parent === path) throw error;
    // Another process may have made it meanwhile.
    const first = (await isMissing(parent)) ? await makeFolders(parent, mode) : undefined;
    return (await makeOne(path, mode)) ? (first ?? path) : first;
  }
}

/** Makes a folder with a new name that begins with `prefix`, for this user alone, whatever the umask. */
export async function makeNewFolder(prefix: string): Promise<string> {
  const path = await mkdtemp(prefix);
  await requireMode(path, 0o700);
  return path;
}

/** False if it is there. */
async function makeOne(path: string, mode: number | undefined): Promise<boolean> {
  try {
    await mkdir(path, mode);
    if (mode !== undefined) await requireMode(path, mode);
    return true;
  } catch (error) {
    if (!failedWith(error, 'EEXIST') || !(await isFolder(path))) throw error;
    return false;
  }
}

/** A new folder that cannot have its mode is removed again. */
async function requireMode(path: string, mode: number): Promise<void> {
  try {
    const made = (await stat(path)).mode & 0o7777;
    if ((made & mode) !== mode) await chmod(path, made | mode);
  } catch (error) {
    await rmdir(path).catch(() => {});
    throw error;
  }
}

/** Also a link to one. What is there but cannot be looked at is reported. */
async function isFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    if (failedWith(error, 'ENOENT')) return false;
    throw error;
  }
}
