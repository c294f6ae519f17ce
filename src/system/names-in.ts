// Lists a folder without holding the event loop: one can have a million names.
import { opendir } from 'node:fs/promises';
import { failedWith } from './errors.js';

// Entries per trip to another thread: well below a millisecond of work here. Node's default is 32.
const READ_AT_ONCE = 256;

/** Those that are wanted, in no order. None if there is no folder. */
export function namesIn(path: string, isWanted: (name: string) => boolean = () => true): Promise<string[]> {
  return decodedNamesIn(path, 'utf8', isWanted);
}

/** The bytes of each name, as Latin-1. */
export function rawNamesIn(path: string): Promise<string[]> {
  return decodedNamesIn(path, 'latin1', () => true);
}

async function decodedNamesIn(
  path: string,
  encoding: 'utf8' | 'latin1',
  isWanted: (name: string) => boolean,
): Promise<string[]> {
  const names: string[] = [];
  const options = { encoding: 'buffer' as BufferEncoding, bufferSize: READ_AT_ONCE };
  try {
    for await (const entry of await opendir(path, options)) {
      const name = (entry.name as unknown as Buffer).toString(encoding);
      if (isWanted(name)) names.push(name);
    }
  } catch (error) {
    if (!failedWith(error, 'ENOENT')) throw error;
  }
  return names;
}
