import { statfs } from 'node:fs/promises';
import { constants } from 'node:os';
import { RootfsError } from '../system/errors.js';

/** Rejects with `ENOSPC` if the file system of `folder` has less space than `bytes`. */
export async function requireSpace(folder: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  if (bavail * bsize >= bytes) return;
  throw new RootfsError(
    'ENOSPC',
    `the image needs ${bytes} bytes more, and the file system of ${folder} has ${bavail * bsize}: make room`,
    { errno: -constants.errno.ENOSPC, path: folder },
  );
}
