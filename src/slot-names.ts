import { opendir } from 'node:fs/promises';
import { failedWith } from './errors.js';

/** Names in the clones folder that a sanitised id can have; none if there is no folder. Not all of them are slots. */
export async function* slotNames(clonesDir: string): AsyncGenerator<string> {
  try {
    for await (const entry of await opendir(clonesDir)) {
      if (/^[A-Za-z0-9_-]+$/.test(entry.name)) yield entry.name;
    }
  } catch (error) {
    if (!failedWith(error, 'ENOENT')) throw error;
  }
}
