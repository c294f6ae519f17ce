// A new slot from another's present contents.
import type { ClonesFolder } from './clones-folder.js';
import { rootfsError } from './errors.js';
import { checkAborted } from './long-work.js';
import { type FileInfo, native } from './native.js';
import { type DerivedRootfs, newSlot, slotExists } from './new-slot.js';
import { sourceChanged, withSlotImage } from './slot-image.js';
import type { CopyOptions } from './slot-options.js';
import type { StackNames } from './stack-names.js';
import { parseStamp } from './stamps.js';
import { rawIdToTell, type VmId } from './vm-id.js';
import { imagePath } from './vm-rootfs.js';

export async function forkSlot(
  folder: ClonesFolder,
  names: StackNames,
  from: VmId,
  vm: VmId,
  refuseInUse: boolean,
  options: CopyOptions,
): Promise<DerivedRootfs> {
  const what = `forking ${folder.path}/${from.safe} to ${folder.path}/${vm.safe}`;
  try {
    checkAborted(what, options.signal);
    // Nothing is made for a slot that is not there.
    if (!refuseInUse && folder.opened !== undefined) {
      const forked = await forkInOneTrip(what, folder, names, from, vm, options);
      if (forked !== undefined) return forked;
    }
    return await withSlotImage(folder, from, refuseInUse, options.signal, async (image, open) => {
      const { sourceSha256, sizeStamp, state } = image;
      const toldStack = state.stack || undefined;
      const stack = toldStack ?? (await names.firstWith(sourceSha256));
      return newSlot(what, folder, open, image, vm, { sourceSha256, sizeStamp, stack, toldStack }, options);
    });
  } catch (error) {
    throw rootfsError(what, error);
  }
}

/** Undefined, and nothing made, unless the parent is plainly whole and can be reflinked. */
async function forkInOneTrip(
  what: string,
  folder: ClonesFolder,
  names: StackNames,
  from: VmId,
  vm: VmId,
  options: CopyOptions,
): Promise<DerivedRootfs | undefined> {
  const { status, parent } = await folder.use(({ store }) =>
    native().forkSlot(store, from.safe, rawIdToTell(from), vm.safe, rawIdToTell(vm), options),
  );
  if (status === 'exists') throw slotExists(what, folder, vm);
  if (status === 'source-changed') throw sourceChanged(what);
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
