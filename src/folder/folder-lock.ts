// Locks a folder: a slot's, or a stack's in the catalog.

import { setTimeout as sleep } from 'node:timers/promises';
import { type NativeFolder, type NativeLockedSlot, native } from '../addon/native.js';
import type { Task } from '../system/task.js';

const LOCK_POLL_MS = 5;

/** Waits for the lock without holding a thread; `absent` if the folder is gone by then. */
export async function withLock<T>(
  task: Task,
  handle: NativeFolder,
  name: string,
  work: (locked: NativeLockedSlot) => Promise<T>,
): Promise<T | 'absent'> {
  for (;;) {
    task.checkAborted();
    const locked = await native().lockSlot(handle, name);
    if (locked === 'absent') return 'absent';
    if (locked !== 'busy') {
      try {
        return await work(locked);
      } finally {
        native().dispose(locked);
      }
    }
    await sleep(LOCK_POLL_MS);
  }
}
