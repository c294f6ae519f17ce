import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { failedWith } from './errors.js';
import { isMissing } from './is-missing.js';

/**
 * Makes a folder, and those above it that are missing. Returns the first that was made. Node's own `recursive` tries
 * for ever where nothing can be made although the parent is there, as in a folder that was removed while it is mounted,
 * and reports a full disk as ENOENT.
 */
export async function makeFolders(
  path: string,
  options: { readonly mode?: number } = {},
): Promise<string | undefined> {
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
async function makeOne(path: string, options: { readonly mode?: number }): Promise<boolean> {
  try {
    await mkdir(path, options);
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
