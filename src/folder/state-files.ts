// Small files in our own folder: replaced as a whole, and read without trusting what lies there by now.
import { rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { native } from '../addon/native.js';
import { failedWith } from '../system/errors.js';

/**
 * What a file holds; undefined if there is none, or nothing that we wrote: a symbolic link, a FIFO (which would block a thread for ever), a
 * folder, or more bytes than `limitBytes`.
 */
export async function readOwnFile(path: string, limitBytes: number): Promise<string | undefined> {
  try {
    return (await native().readSmallFile(path, limitBytes)) ?? undefined;
  } catch (error) {
    if (failedWith(error, 'ENOTDIR')) return undefined;
    throw error;
  }
}

/** Readers, in any process and after any power cut, find the old contents or the new. `folder` is on the same filesystem, and this process's own. */
export async function replaceOwnFile(path: string, text: string, folder: string): Promise<void> {
  const temporary = join(folder, basename(path));
  try {
    await writeFile(temporary, text, { mode: 0o600, flush: true });
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {}); // goes with its folder
    throw error;
  }
}
