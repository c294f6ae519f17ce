// The lock of a folder: a slot's, or in the catalog a stack's.
import { setTimeout as sleep } from 'node:timers/promises';
import { type NativeFolder, type NativeLockedSlot, native } from '../addon/native.js';
import { checkAborted } from '../system/long-work.js';

const LOCK_POLL_MS = 5;

/** Waits for the lock without holding a thread; `absent` if the folder is gone by then. */
export async function withLock<T>(
  what: string,
  handle: NativeFolder,
  name: string,
  signal: AbortSignal | undefined,
  work: (locked: NativeLockedSlot) => Promise<T>,
): Promise<T | 'absent'> {
  for (;;) {
    checkAborted(what, signal);
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
