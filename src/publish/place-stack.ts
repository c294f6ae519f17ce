// Makes an image appear in the catalog: a new stack by renaming its folder, a new image of a stack by renaming it over
// the old one. Both are flushed.

import { lstat, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type NativeFolder, type NativeGuardedFolder, native } from '../addon/native.js';
import { TEMPLATE_ROOTFS_FILE } from '../catalog/catalog.js';
import { imageConfigsIn, removeImageConfigs } from '../catalog/image-config.js';
import { withLock } from '../folder/folder-lock.js';
import { copyFile } from '../image/file-copy.js';
import { failedWith, isTaken, RootfsError } from '../system/errors.js';
import { flush, flushName } from '../system/flush.js';
import { isMissing } from '../system/is-missing.js';
import type { Task } from '../system/task.js';

const PUBLISH_AGAIN = 'give replace: true to publish it again';

interface StackPlace {
  /** The folder that the image is in now. */
  readonly staged: string;
  readonly stackFolder: string;
  /** The stack's name: what is locked. */
  readonly name: string;
}

/**
 * Moves the image from the folder `staged`. Resolves to whether the stack already had an image. Rejects with
 * `STACK_EXISTS` unless `replace` is set.
 */
export async function placeStack(
  task: Task,
  handle: NativeFolder,
  { staged, stackFolder, name }: StackPlace,
  replace: boolean,
): Promise<boolean> {
  await flush(staged);
  for (;;) {
    task.checkAborted();
    if (await placeFolder(staged, stackFolder)) return false;
    const image = join(stackFolder, TEMPLATE_ROOTFS_FILE);
    const replaced = await withLock(task, handle, name, async () => {
      const had = !(await isMissing(image));
      if (had && !replace) throw stackExists(image);
      const configs = await imageConfigsIn(staged);
      // The config first: it belongs to its image alone, so none ever lacks its own.
      for (const file of [...configs, TEMPLATE_ROOTFS_FILE])
        await moveFile(task, join(staged, file), stackFolder, file);
      await flushName(stackFolder, image, PUBLISH_AGAIN);
      // Also one that the same image had before, and now has not.
      await removeImageConfigs(stackFolder, configs);
      return had;
    });
    if (replaced !== 'absent') return replaced;
  }
}

/** Name of a temporary file in the stack's own folder, made under its lock. */
export const INCOMING = `.${TEMPLATE_ROOTFS_FILE}.incoming`;

/**
 * If a stack's folder has its own project id, is in another subvolume or is a mount point, no file can be renamed into
 * it from outside. There the file is first copied or reflinked into the folder. The next call removes what a crash
 * leaves behind.
 */
async function moveFile(task: Task, from: string, stackFolder: string, name: string): Promise<void> {
  const to = join(stackFolder, name);
  try {
    return await rename(from, to);
  } catch (error) {
    if (!failedWith(error, 'EXDEV')) throw error;
  }
  const incoming = join(stackFolder, INCOMING);
  await rm(incoming, { force: true });
  try {
    await copyInto(task, from, stackFolder, INCOMING);
    await rename(incoming, to);
  } catch (error) {
    await rm(incoming, { force: true });
    throw error;
  }
}

async function copyInto(task: Task, from: string, stackFolder: string, name: string): Promise<void> {
  const { source, info } = await native().openSource(from);
  let folder: NativeGuardedFolder | undefined;
  try {
    folder = await native().openGuardedFolder(stackFolder, true);
    await copyFile(
      task,
      source,
      info.identity.sizeBytes,
      { folder, name },
      {
        ownerAndMode: { owner: undefined, mode: info.mode & 0o777 },
        durable: true,
        // Nobody else uses the staged image.
        beforePublished: async () => {},
      },
    );
  } finally {
    if (folder !== undefined) native().dispose(folder);
    native().dispose(source);
  }
}

export function stackExists(image: string): RootfsError {
  return new RootfsError(
    'STACK_EXISTS',
    `there is ${image} already: give replace: true to put another image in its place`,
    { path: image },
  );
}

export function noStackFolder(path: string, cause?: unknown): RootfsError {
  const message = `${path} is a file or a symbolic link, not the folder of a stack: move it away`;
  return new RootfsError('TEMPLATE_INVALID', message, { path, cause });
}

/** Rejects with `TEMPLATE_INVALID` where {@link placeStack} would, whatever is to be placed. */
export async function requireStackFolder(stackFolder: string): Promise<void> {
  const found = await lstat(stackFolder).catch(() => undefined); // placing it tells more
  if (found !== undefined && !found.isDirectory()) throw noStackFolder(stackFolder);
}

/** False if a non-empty folder or a mount point has the name. An empty folder is replaced. */
async function placeFolder(staged: string, stackFolder: string): Promise<boolean> {
  try {
    await rename(staged, stackFolder);
  } catch (error) {
    if (isTaken(error) || failedWith(error, 'EBUSY')) return false;
    if (!failedWith(error, 'ENOTDIR')) throw error;
    throw noStackFolder(stackFolder, error);
  }
  await flushName(join(stackFolder, '..'), stackFolder, PUBLISH_AGAIN);
  return true;
}
