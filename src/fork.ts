// A new slot from another's present contents.
import type { ClonesFolder } from './clones-folder.js';
import { rootfsError } from './errors.js';
import { type DerivedRootfs, newSlot } from './new-slot.js';
import { withSlotImage } from './slot-image.js';
import type { CopyOptions } from './slot-options.js';
import type { StackNames } from './stack-names.js';
import type { VmId } from './vm-id.js';

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
