// Locks a name in a folder: of a slot, a stack or a pull. The lock is a byte of replace.lock in our own folder.

import { setTimeout as sleep } from 'node:timers/promises';
import { type NativeFolder, type NativeLockedSlot, native } from '../addon/native.js';
import { RootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';

const LOCK_POLL_MS = 5;

// Longer than any grow takes that copies nothing. A process that was stopped while it held the lock must not stop all
// others.
const LOCK_LIMIT_MS = 120_000;

// Versions before 0.1.0 lock the slot's folder itself. Any user who may read the folder can do so: do not wait long.
const OLDER_LIMIT_MS = 1000;

/**
 * Waits for the lock without holding a thread; `absent` if the folder is gone by then. Throws `SLOT_BUSY` after a time.
 */
export async function withLock<T>(
  task: Task,
  handle: NativeFolder,
  name: string,
  work: (locked: NativeLockedSlot) => Promise<T>,
): Promise<T | 'absent'> {
  const start = performance.now();
  for (;;) {
    task.checkAborted();
    const locked = await native().lockSlot(handle, name, performance.now() < start + OLDER_LIMIT_MS);
    if (locked === 'absent') return 'absent';
    if (locked !== 'busy') {
      try {
        return await work(locked);
      } finally {
        native().dispose(locked);
      }
    }
    if (performance.now() > start + LOCK_LIMIT_MS) {
      throw new RootfsError(
        'SLOT_BUSY',
        `${task.what}: another process has been working on "${name}" for ${LOCK_LIMIT_MS / 1000} s; try ` +
          'again, or end that process',
      );
    }
    await sleep(LOCK_POLL_MS);
  }
}
