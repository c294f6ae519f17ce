// Exports a slot's image into a jail: Firecracker's jailer sees nothing outside its chroot.

import { lstat } from 'node:fs/promises';
import { type Attempt, attemptsOf } from '../addon/attempts.js';
import { type NativeFolder, native } from '../addon/native.js';
import { inFolderOf } from '../folder/guarded-path.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import type { Scattered } from '../image/extents.js';
import { copyFile, type Destination } from '../image/file-copy.js';
import { asRootfsError, failedWith, isSystemError, RootfsError } from '../system/errors.js';
import { inFlushTurn } from '../system/flush.js';
import { type Folders, refuseAmongOurs } from '../system/folders-overlap.js';
import type { Strategy } from '../system/strategy.js';
import { Task } from '../system/task.js';
import type { Sharers } from './shared-image.js';
import { otherLinksError } from './slot-errors.js';
import { requireUnchanged, type SlotImage, type TemplateBytes, withSlotImage } from './slot-image.js';
import type { CopyOptions } from './slot-options.js';
import { hasOtherLinks } from './slot-state.js';
import { imagePath } from './stamps.js';
import type { VmId } from './vm-id.js';

export interface ExportedImage extends Scattered {
  readonly path: string;
  readonly sizeBytes: number;
  /**
   * `hardlink`: another name of the slot's own image, so what the VM writes is in the slot. Otherwise the image is
   * independent of the slot.
   */
  readonly strategy: Strategy;
  /**
   * Methods that failed before one worked, in order. `SHARED_INODE`: the clone is the template itself, or another VM's
   * disk, which no jail may get.
   */
  readonly attempts: readonly Attempt[];
}

interface ExportOptions extends CopyOptions {
  readonly folders: Folders;
  readonly sharers: Sharers;
}

export async function exportSlot(
  folder: ManagedFolder,
  templateBytes: TemplateBytes,
  vm: VmId,
  dest: string,
  options: ExportOptions,
): Promise<ExportedImage> {
  const task = new Task(`exporting ${imagePath(folder, vm)} to ${dest}`, options.signal);
  const request = { refuseInUse: false, templateBytes, signal: options.signal };
  try {
    await refuseAmongOurs(dest, options.folders);
    return await withSlotImage(folder, vm, request, (image, { handle }) =>
      inFolderOf(dest, async (destFolder, name) => {
        const slot = { handle, vm, image };
        const made = await exportImage(task, slot, { folder: destFolder, name }, options);
        return made && { path: dest, sizeBytes: image.identity.sizeBytes, ...made };
      }),
    );
  } catch (error) {
    if (failedWith(error, 'EEXIST')) throw await fileExistsError(task.what, dest, error);
    throw asRootfsError(task.what, error);
  }
}

/** The slot that is exported, with its image open. */
interface OpenSlot {
  readonly handle: NativeFolder;
  readonly vm: VmId;
  readonly image: SlotImage;
}

type Made = Pick<ExportedImage, 'strategy' | 'attempts' | 'extents'>;

/** Undefined if the slot was released, or has another image by now. */
async function exportImage(
  task: Task,
  slot: OpenSlot,
  dest: Destination,
  options: ExportOptions,
): Promise<Made | undefined> {
  const { image } = slot;
  const refusal = (await mayLink(task, slot, options))
    ? await link(task, slot, dest, options)
    : 'SHARED_INODE';
  if (refusal === 'moved') return undefined;
  if (refusal === undefined) return { strategy: 'hardlink', attempts: [] };
  const { attempts, ...made } = await copyFile(task, image.source, image.identity.sizeBytes, dest, {
    ownerAndMode: options,
    durable: options.durable,
    beforePublished: () => requireUnchanged(task.what, image.source, image.identity),
  });
  if (options.durable) await flushName(task, dest);
  return { ...made, attempts: [{ strategy: 'hardlink', code: refusal }, ...attempts] };
}

/** The file stays, whatever the flush says: a VMM may have opened it. */
async function flushName({ what }: Task, { folder }: Destination): Promise<void> {
  try {
    await inFlushTurn(what, () => native().flushNames(folder));
  } catch (error) {
    throw asRootfsError(
      what,
      error,
      'the same call rejects with FILE_EXISTS: remove the file and call again',
    );
  }
}

/** No jail gets a template or another VM's disk. */
async function mayLink(
  task: Task,
  { vm, image: { state } }: OpenSlot,
  { sharers }: ExportOptions,
): Promise<boolean> {
  return (await sharers.find(task, vm.safe, state, undefined)) === 'nobody';
}

/** Why a hardlink is not possible. Undefined if it was made. `moved`: the slot has another image by now, or none. */
async function link(
  task: Task,
  slot: OpenSlot,
  { folder, name }: Destination,
  { owner, mode, durable }: CopyOptions,
): Promise<string | undefined> {
  const { vm, image } = slot;
  // Whoever gave the image a name of his own keeps the owner and mode that it has there.
  const keepsOwnerAndMode = hasOtherLinks(image.state);
  const target = { folder, name, owner, mode, keepsOwnerAndMode, durable };
  const outcome = await native()
    .exportImage(slot.handle, { slot: vm.safe, image: image.source, ...target })
    .catch((error: unknown) => {
      const lacksOnlyOwner = isSystemError(error) && error.syscall.startsWith('fch');
      throw lacksOnlyOwner
        ? asRootfsError(`${task.what}: the file was created, but setting its owner or mode failed`, error)
        : error;
    });
  if (outcome.status === 'linked') return undefined;
  if (outcome.status === 'kept') throw otherLinksError(vm, image.identity.links);
  if (outcome.status === 'moved') return 'moved';
  return attemptsOf([{ strategy: 'hardlink', errno: outcome.errno }])[0]?.code;
}

async function fileExistsError(what: string, path: string, cause: unknown): Promise<RootfsError> {
  const isFolder = await lstat(path).then(
    (there) => there.isDirectory(),
    () => false,
  );
  const why = isFolder
    ? 'that is a folder: give the path of a file in it'
    : 'another file has that name; remove it first';
  return new RootfsError('FILE_EXISTS', `${what}: ${why}`, { path, cause });
}
