// Temporary folders for trying things on the file system of the clones, within our own folder there if it exists.
import { access, constants, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { makeNewFolder } from '../system/make-folders.js';
import { STATE_FOLDER } from '../system/state-folder.js';

// Their names contain a dot, which no slot's name does.
const PREFIX = '.microvm-rootfs-scratch-';

export async function withScratch<T>(folder: string, work: (scratch: string) => Promise<T>): Promise<T> {
  const own = join(folder, STATE_FOLDER);
  const writable = await access(own, constants.W_OK | constants.X_OK).then(
    () => true,
    () => false,
  );
  const scratch = await makeNewFolder(join(writable ? own : folder, PREFIX));
  try {
    return await work(scratch);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** The folders of commands that were killed, and of those that run at this moment. */
export async function leftScratch(folder: string): Promise<string[]> {
  const found: string[] = [];
  for (const parent of [folder, join(folder, STATE_FOLDER)]) {
    const names = await readdir(parent).catch(() => []);
    found.push(...names.filter((name) => name.startsWith(PREFIX)).map((name) => join(parent, name)));
  }
  return found;
}
