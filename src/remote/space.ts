import { statfs } from 'node:fs/promises';
import { constants } from 'node:os';
import { pauseFor } from '../system/back-off.js';
import { RootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';

// XFS gives back the space of removed files a moment later (fs/xfs/xfs_icache.c, inodegc).
const LOOK_AGAIN_MS = [5, 10, 20, 50, 100, 200, 400];

/** Rejects with `ENOSPC` if the file system of `folder` has less space than `bytes`. */
export async function requireSpace(task: Task, folder: string, bytes: number): Promise<void> {
  let free = await freeBytesOf(folder);
  for (const ms of LOOK_AGAIN_MS) {
    if (free >= bytes) break;
    await pauseFor(task, ms);
    free = await freeBytesOf(folder);
  }
  if (free >= bytes) return;
  throw new RootfsError(
    'ENOSPC',
    `the image needs ${bytes} bytes more, and the file system of ${folder} has ${free}: make room`,
    { errno: -constants.errno.ENOSPC, path: folder },
  );
}

async function freeBytesOf(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder);
  return bavail * bsize;
}
