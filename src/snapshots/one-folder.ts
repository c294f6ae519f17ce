// Looking at a snapshot that another process may remove, or take anew under the same name, in the same instant.
import { lstat } from 'node:fs/promises';
import { failedWith } from '../system/errors.js';

// Each round is lost to somebody who replaces the snapshot meanwhile.
const ROUNDS = 16;

/**
 * Runs `look` until all that it saw was in one and the same folder, so that what it finds missing is missing, and no file is held against the
 * manifest of another snapshot. `undo` is given what it returned in vain.
 */
export async function inOneFolder<T>(
  path: string,
  look: () => Promise<T>,
  undo: (seen: T) => void = () => {},
): Promise<T> {
  for (let round = 1; ; round++) {
    const before = await folderAt(path);
    let seen: T;
    try {
      seen = await look();
    } catch (error) {
      if (round < ROUNDS && (await folderAt(path)) !== before) continue;
      throw error;
    }
    if (round === ROUNDS || (await folderAt(path)) === before) return seen;
    undo(seen);
  }
}

/** Its change time as well: renaming it changes that, and an inode number is used again. */
async function folderAt(path: string): Promise<string | undefined> {
  try {
    const { dev, ino, ctimeNs } = await lstat(path, { bigint: true });
    return `${dev}:${ino}:${ctimeNs}`;
  } catch (error) {
    if (failedWith(error, 'ENOENT')) return undefined;
    throw error;
  }
}
