// Lists a folder without holding the event loop: one can have a million names.
import { opendir } from 'node:fs/promises';
import { failedWith } from './errors.js';
import { mapInSlices } from './map-in-slices.js';

// Entries per trip to another thread: well below a millisecond of work here. Node's default is 32.
const READ_AT_ONCE = 256;

/** In no order. None if there is no folder. */
export async function namesIn(path: string): Promise<string[]> {
  return mapInSlices(await rawNamesIn(path), (name) => Buffer.from(name, 'latin1').toString());
}

/** The bytes of each name, as Latin-1. */
export async function rawNamesIn(path: string): Promise<string[]> {
  const names: string[] = [];
  const options = { encoding: 'buffer' as BufferEncoding, bufferSize: READ_AT_ONCE };
  try {
    for await (const { name } of await opendir(path, options))
      names.push((name as unknown as Buffer).toString('latin1'));
  } catch (error) {
    if (!failedWith(error, 'ENOENT')) throw error;
  }
  return names;
}
