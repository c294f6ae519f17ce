// Makes a new slot from the current contents of another.

import { type FileInfo, native } from '../addon/native.js';
import type { StackNames } from '../catalog/stack-names.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { asRootfsError } from '../system/errors.js';
import { Task } from '../system/task.js';
import { type DerivedRootfs, newSlot, slotExistsError } from './new-slot.js';
import { sourceChangedError, type TemplateBytes, withSlotImage } from './slot-image.js';
import type { CopyOptions } from './slot-options.js';
import { imagePath, parseStamp } from './stamps.js';
import { rawIdToStore, type VmId } from './vm-id.js';

export async function forkSlot(
  folder: ManagedFolder,
  names: StackNames,
  templateBytes: TemplateBytes,
  from: VmId,
  vm: VmId,
  refuseInUse: boolean,
  options: CopyOptions,
): Promise<DerivedRootfs> {
  const what = `forking ${folder.path}/${from.safe} to ${folder.path}/${vm.safe}`;
  const task = new Task(what, options.signal);
  try {
    task.checkAborted();
    // Do not open or create a folder for a slot that does not exist.
    if (!refuseInUse && folder.opened !== undefined) {
      const forked = await forkInOneTrip(what, folder, names, from, vm, options);
      if (forked !== undefined) return forked;
    }
    const { signal } = options;
    return await withSlotImage(folder, from, { refuseInUse, templateBytes, signal }, async (image, open) => {
      const { sourceSha256, sizeStamp, state } = image;
      const storedStack = state.stack || undefined;
      const stack = storedStack ?? (await names.firstWith(sourceSha256));
      return newSlot(task, folder, open, image, vm, { sourceSha256, sizeStamp, stack, storedStack }, options);
    });
  } catch (error) {
    throw asRootfsError(what, error);
  }
}

/** Undefined, with nothing created, unless the parent is clearly complete and can be reflinked. */
async function forkInOneTrip(
  what: string,
  folder: ManagedFolder,
  names: StackNames,
  from: VmId,
  vm: VmId,
  options: CopyOptions,
): Promise<DerivedRootfs | undefined> {
  const { status, parent } = await folder.use(({ handle }) =>
    native().forkSlot(handle, from.safe, rawIdToStore(from), vm.safe, rawIdToStore(vm), options),
  );
  if (status === 'exists') throw slotExistsError(what, folder, vm);
  if (status === 'source-changed') throw sourceChangedError(what);
  if (status !== 'created') return undefined;
  const sourceSha256 = parseStamp(parent.stamp) as string;
  return {
    vmId: vm.safe,
    stack: parent.stack || (await names.firstWith(sourceSha256)),
    path: imagePath(folder, vm),
    sourceSha256,
    sizeBytes: (parent.image as FileInfo).identity.sizeBytes,
    strategy: 'reflink',
    attempts: [],
  };
}
