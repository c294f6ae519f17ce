import { opendir } from 'node:fs/promises';
import { failedWith } from '../system/errors.js';

// Node's default is 32 entries per trip to another thread.
const READ_AT_ONCE = 1024;

/** Names in the clones folder that a slot can have; none if there is no folder. Not all of them are slots. */
export async function* slotNames(clonesDir: string): AsyncGenerator<string> {
  try {
    for await (const entry of await opendir(clonesDir, { bufferSize: READ_AT_ONCE })) {
      if (/^[A-Za-z0-9_-]+$/.test(entry.name)) yield entry.name;
    }
  } catch (error) {
    if (!failedWith(error, 'ENOENT')) throw error;
  }
}
