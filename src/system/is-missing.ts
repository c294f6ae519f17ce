import { lstat } from 'node:fs/promises';
import { failedWith } from './errors.js';

/** Whether nothing exists at this path, not even a dangling symbolic link. */
export async function isMissing(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return false;
  } catch (error) {
    if (failedWith(error, 'ENOENT')) return true;
    throw error;
  }
}
