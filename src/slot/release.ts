// Taking slots away.
import { join } from 'node:path';
import { native } from '../addon/native.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { asRootfsError, RootfsError } from '../system/errors.js';
import { isMissing } from '../system/is-missing.js';
import { slotInvalidError, slotTornError, vmIdCollisionError } from './slot-state.js';
import { rawIdToStore, type VmId } from './vm-id.js';

export interface ReleaseOptions {
  /** Flush the clones folder before the call resolves, so that the slot does not come back after a power cut. */
  readonly durable?: boolean;
  /** Reject with `SLOT_IN_USE` rather than take the image from a process that has it open. */
  readonly refuseInUse?: boolean;
}

/** False if there was no slot. */
export async function releaseSlot(
  folder: ManagedFolder,
  vm: VmId,
  options: ReleaseOptions,
): Promise<boolean> {
  const path = join(folder.path, vm.safe);
  const what = `releasing ${path}`;
  try {
    // Nothing is opened, or made, for a slot that is not there. But `durable` is to hold for one that another took away as well.
    const absent = await isMissing(path);
    if (absent && (!options.durable || (await isMissing(folder.path)))) return false;
    const { status, rawId } = await folder.use(({ handle }) =>
      native().releaseSlot(handle, {
        slot: vm.safe,
        rawId: rawIdToStore(vm),
        durable: options.durable,
        refuseInUse: options.refuseInUse,
      }),
    );
    switch (status) {
      case 'absent':
        return false;
      case 'released':
        folder.sweepInBackground();
        return true;
      case 'foreign':
        throw slotInvalidError(path);
      case 'torn':
        throw slotTornError(
          path,
          'the file with its raw id is empty or unreadable: recover() removes it, or',
        );
      case 'collision':
        throw vmIdCollisionError(path, vm, rawId === '' ? vm.safe : rawId);
      case 'in-use':
        throw new RootfsError(
          'SLOT_IN_USE',
          `${what}: its image is open in another process: stop the VM first`,
          { path },
        );
    }
  } catch (error) {
    throw asRootfsError(what, error);
  }
}
