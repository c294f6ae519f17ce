// Giving a slot's image a place in a jail: Firecracker's jailer sees nothing outside its chroot.

import { constants } from 'node:fs';
import { link, open, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Attempt } from '../addon/attempts.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { copyFile } from '../image/file-copy.js';
import { asRootfsError, errnoName, failedWith, isSystemError, RootfsError } from '../system/errors.js';
import type { Strategy } from '../system/strategy.js';
import { Task } from '../system/task.js';
import { requireUnchanged, type SlotImage, withSlotImage } from './slot-image.js';
import type { CopyOptions } from './slot-options.js';
import { hasForeignNames } from './slot-state.js';
import { CLONE_EXPORTED_FILE, imagePath } from './stamps.js';
import type { VmId } from './vm-id.js';

export interface ExportedImage {
  readonly path: string;
  readonly sizeBytes: number;
  /**
   * `hardlink`: the slot's very image under another name, what the VM writes is in the slot. Else the image has a life
   * of its own.
   */
  readonly strategy: Strategy;
  /**
   * Ways that were left before one served, in order. `SHARED_INODE`: the clone is its template, which no jail may have.
   */
  readonly attempts: readonly Attempt[];
}

export async function exportSlot(
  folder: ManagedFolder,
  vm: VmId,
  dest: string,
  options: CopyOptions,
): Promise<ExportedImage> {
  const what = `exporting ${imagePath(folder, vm)} to ${dest}`;
  try {
    return await withSlotImage(folder, vm, false, options.signal, async (image) => {
      const attempts: Attempt[] = [];
      const { sizeBytes } = image.identity;
      if (hasForeignNames(image.state)) {
        attempts.push({ strategy: 'hardlink', code: 'SHARED_INODE' });
      } else {
        const failure = await linkTo(folder, vm, image, dest, options);
        if (failure === undefined) return { path: dest, sizeBytes, strategy: 'hardlink', attempts };
        attempts.push({ strategy: 'hardlink', code: failure });
      }
      const { durable } = options;
      const copied = await copyFile(new Task(what, options.signal), image.source, sizeBytes, dest, {
        dress: options,
        durable,
        beforePublished: () => requireUnchanged(what, image.source, image.identity),
      });
      return {
        path: dest,
        sizeBytes,
        strategy: copied.strategy,
        attempts: [...attempts, ...copied.attempts],
      };
    });
  } catch (error) {
    if (failedWith(error, 'EEXIST'))
      throw new RootfsError('FILE_EXISTS', `${what}: there is a file already; remove it first`, {
        path: dest,
        cause: error,
      });
    throw asRootfsError(what, error);
  }
}

// What a hardlink cannot do between these two places: another filesystem, too many names, a policy of the kernel.
const NEXT_RUNG = ['EXDEV', 'EMLINK', 'EPERM', 'EACCES', 'ENOTSUP', 'ENOSYS'];

/** Why there is none; undefined if it was made. */
async function linkTo(
  folder: ManagedFolder,
  vm: VmId,
  { identity, state }: SlotImage,
  dest: string,
  { owner, mode }: CopyOptions,
): Promise<string | undefined> {
  // Told before it is true: a second name that the slot does not know of would look like a template's.
  const mark = join(folder.path, vm.safe, CLONE_EXPORTED_FILE);
  const isFirst = state.exported === undefined;
  if (isFirst) {
    await rm(mark, { force: true });
    await writeFile(mark, `${identity.inode}`, { flag: 'wx', mode: 0o644 });
  }
  try {
    await link(imagePath(folder, vm), dest);
  } catch (error) {
    if (isFirst) await rm(mark, { force: true });
    if (!isSystemError(error) || !NEXT_RUNG.includes(errnoName(error.errno))) throw error;
    return errnoName(error.errno);
  }
  try {
    const file = await open(dest, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const { ino } = await file.stat({ bigint: true });
      if (ino !== identity.inode)
        throw new RootfsError('SLOT_BUSY', `${dest}: the slot was replaced in the same instant; try again`);
      // Owner before mode: changing the owner clears set-id bits.
      if (owner !== undefined) await file.chown(owner.uid, owner.gid);
      if (mode !== undefined) await file.chmod(mode);
    } finally {
      await file.close();
    }
  } catch (error) {
    await rm(dest, { force: true });
    throw error;
  }
  return undefined;
}
