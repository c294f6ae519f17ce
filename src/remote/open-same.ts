// Opens by its path a file that is open already: the addon's descriptors are not for Node's reads.

import { type FileHandle, open } from 'node:fs/promises';
import { isGone } from '../system/errors.js';

/** Rejects with the error of `replaced` if another file, or none, has the path by now. */
export async function openSame(
  path: string,
  { inode }: { readonly inode: bigint },
  replaced: () => Error,
): Promise<FileHandle> {
  const file = await open(path, 'r').catch((error: unknown) => {
    throw isGone(error) ? replaced() : error;
  });
  try {
    if ((await file.stat({ bigint: true })).ino !== inode) throw replaced();
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}
