import { chmod, mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { failedWith } from './errors.js';
import { isMissing } from './is-missing.js';

interface MakeOptions {
  readonly mode?: number;
  readonly whateverUmask?: number;
}

/**
 * Makes a folder, and those above it that are missing. Returns the first that was made. Node's own `recursive` tries
 * for ever where nothing can be made although the parent is there, as in a folder that was removed while it is mounted,
 * and reports a full disk as ENOENT. Each that was made gets the mode `whateverUmask`, if that is given: a umask and a
 * default ACL take rights away from those whom the folder is for.
 */
export async function makeFolders(path: string, options: MakeOptions = {}): Promise<string | undefined> {
  try {
    return (await makeOne(path, options)) ? path : undefined;
  } catch (error) {
    const parent = dirname(path);
    if (!failedWith(error, 'ENOENT') || parent === path) throw error;
    // Another process may have made it meanwhile.
    const first = (await isMissing(parent)) ? await makeFolders(parent, options) : undefined;
    return (await makeOne(path, options)) ? (first ?? path) : first;
  }
}

/** False if it is there. */
async function makeOne(path: string, { mode, whateverUmask }: MakeOptions): Promise<boolean> {
  try {
    await mkdir(path, whateverUmask ?? mode);
    if (whateverUmask !== undefined) await chmod(path, whateverUmask);
    return true;
  } catch (error) {
    if (!failedWith(error, 'EEXIST') || !(await isFolder(path))) throw error;
    return false;
  }
}

async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}
