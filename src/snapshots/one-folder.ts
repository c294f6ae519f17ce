// Looks at a snapshot safely while another process may remove it, or replace it under the same name.
import { lstat } from 'node:fs/promises';
import { failedWith, hasCode } from '../system/errors.js';

// A round fails only if somebody replaces the snapshot meanwhile.
const ROUNDS = 16;

/**
 * Runs `look` until everything it saw was in the same folder. Then a file it did not find is really missing, and no
 * file is compared with the manifest of another snapshot. `undo` receives the results of failed rounds.
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
      // Nothing before and nothing now does not mean that there was nothing in between.
      const same = (await folderAt(path)) === before && (before !== undefined || isNotFound(error));
      if (round < ROUNDS && !same) continue;
      throw error;
    }
    if (round === ROUNDS || (await folderAt(path)) === before) return seen;
    undo(seen);
  }
}

function isNotFound(error: unknown): boolean {
  return hasCode(error, 'SNAPSHOT_NOT_FOUND');
}

/** Includes the change time: a rename changes it, and inode numbers are reused. */
async function folderAt(path: string): Promise<string | undefined> {
  try {
    const { dev, ino, ctimeNs } = await lstat(path, { bigint: true });
    return `${dev}:${ino}:${ctimeNs}`;
  } catch (error) {
    if (failedWith(error, 'ENOENT')) return undefined;
    throw error;
  }
}
