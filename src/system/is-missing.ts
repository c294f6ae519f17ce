import { lstat } from 'node:fs/promises';
import { failedWith } from './errors.js';

/** Whether nothing at all has this path, not even a symbolic link to nothing. */
export async function isMissing(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return false;
  } catch (error) {
    if (failedWith(error, 'ENOENT')) return true;
    throw error;
  }
}
