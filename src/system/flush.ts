import { type FileHandle, open } from 'node:fs/promises';
import { asRootfsError, failedWith } from './errors.js';
import { openOfMode } from './make-files.js';
import { Task } from './task.js';
import { Turns } from './turns.js';

const flushes = new Turns(1);

/** A flush can hold one of Node's threads for seconds, and jobs of long-work.ts may hold two: so only one at a time. */
export function inFlushTurn<T>(what: string, flushing: () => Promise<T>): Promise<T> {
  return flushes.run(new Task(`flushing ${what}`, undefined), flushing);
}

/** fsync of a file or a folder. File systems that can't be written to answer EINVAL: nothing there is unflushed. */
export function flush(path: string): Promise<void> {
  return inFlushTurn(path, () => flushNow(path));
}

/** Writes a new file, or over one that a killed process left, with at least this mode whatever the umask. */
export async function writeFlushed(path: string, contents: string | Buffer, mode: number): Promise<void> {
  const file = await openOfMode(path, 'w', mode);
  try {
    await file.writeFile(contents);
    await sync(file, path);
  } finally {
    await file.close();
  }
}

/** Flushes the name of what was just published in `folder`. If that fails, it stays: somebody may use it already. */
export async function flushName(folder: string, path: string, again: string): Promise<void> {
  try {
    await flush(folder);
  } catch (error) {
    const what = `flushing the folder of ${path}: it is complete, but a power cut may lose it (${again})`;
    throw asRootfsError(what, error);
  }
}

async function flushNow(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await sync(file, path);
  } finally {
    await file.close();
  }
}

/** Node's own error has no path. */
async function sync(file: FileHandle, path: string): Promise<void> {
  await file.sync().catch((error) => {
    if (!failedWith(error, 'EINVAL')) throw Object.assign(error, { path });
  });
}
