// Making an image appear in the catalog: a new stack by a rename of its folder, another image by a rename over the old one. Either is flushed.

import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import type { NativeFolder } from '../addon/native.js';
import { TEMPLATE_ROOTFS_FILE } from '../catalog/catalog.js';
import { placeImageConfig, removeImageConfigs } from '../catalog/image-config.js';
import { withLock } from '../folder/folder-lock.js';
import { failedWith, RootfsError } from '../system/errors.js';
import { flush } from '../system/flush.js';
import { isMissing } from '../system/is-missing.js';
import type { Task } from '../system/task.js';

/** Moves the image in the folder `staged`. Resolves to whether the stack had one before. Rejects with `STACK_EXISTS` unless `replace`. */
export async function placeStack(
  task: Task,
  handle: NativeFolder,
  staged: string,
  stackFolder: string,
  name: string,
  sha256: string,
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
      await placeImageConfig(staged, stackFolder);
      await rename(join(staged, TEMPLATE_ROOTFS_FILE), image);
      await flush(stackFolder);
      await removeImageConfigs(image, sha256);
      return had;
    });
    if (replaced !== 'absent') return replaced;
  }
}

export function stackExists(image: string): RootfsError {
  return new RootfsError(
    'STACK_EXISTS',
    `there is ${image} already: give replace: true to put another image in its place`,
    { path: image },
  );
}

/** False if a folder with something in it has the name. An empty one is replaced. */
async function placeFolder(staged: string, stackFolder: string): Promise<boolean> {
  try {
    await rename(staged, stackFolder);
  } catch (error) {
    if (failedWith(error, 'ENOTEMPTY') || failedWith(error, 'EEXIST')) return false;
    if (!failedWith(error, 'ENOTDIR')) throw error;
    throw new RootfsError(
      'TEMPLATE_INVALID',
      `${stackFolder} is a file or a symbolic link, not the folder of a stack: move it away`,
      { path: stackFolder, cause: error },
    );
  }
  await flush(join(stackFolder, '..'));
  return true;
}
