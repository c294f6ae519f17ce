import { open } from 'node:fs/promises';
import { failedWith } from './errors.js';
import { Task } from './task.js';
import { Turns } from './turns.js';

// A flush can hold one of Node's threads for seconds, and others of long-work.ts may hold two.
const flushes = new Turns(1);

/** fsync of a file or a folder. File systems that can't be written to answer EINVAL: nothing there is unflushed. */
export function flush(path: string): Promise<void> {
  return flushes.run(new Task(`flushing ${path}`, undefined), () => flushNow(path));
}

async function flushNow(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync().catch((error) => {
      if (!failedWith(error, 'EINVAL')) throw error;
    });
  } finally {
    await file.close();
  }
}
