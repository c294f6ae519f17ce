// Small files in our own folder. They are replaced atomically, and read without trusting what is there.
import { rename, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { native } from '../addon/native.js';
import { failedWith } from '../system/errors.js';
import { writeFlushed } from '../system/flush.js';

/**
 * The contents of a file. Undefined if there is none, or if it cannot be ours: a symbolic link, a FIFO (which would
 * block a thread), a folder, or more than `limitBytes` bytes.
 */
export async function readOwnFile(path: string, limitBytes: number): Promise<string | undefined> {
  try {
    return (await native().readSmallFile(path, limitBytes)) ?? undefined;
  } catch (error) {
    if (failedWith(error, 'ENOTDIR')) return undefined;
    throw error;
  }
}

let writes = 0;

/**
 * Readers in any process, even after a power cut, find either the old contents or the new. `folder` belongs to this
 * process and is on the same file system.
 */
export async function replaceOwnFile(path: string, contents: string | Buffer, folder: string): Promise<void> {
  // Two callers at once may replace one file.
  const temporary = join(folder, `${basename(path)}-${++writes}`);
  try {
    await writeFlushed(temporary, contents, 0o600);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {}); // goes with its folder
    throw error;
  }
}
