// Looks at one slot, and makes nothing where there is none.

import { inspectSlot, type SlotState } from '../addon/native.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { isMissing } from '../system/is-missing.js';
import type { VmId } from './vm-id.js';

/** Undefined if there is no slot. */
export async function lookAtSlot(folder: ManagedFolder, vm: VmId): Promise<SlotState | undefined> {
  const path = `${folder.path}/${vm.safe}`;
  // Opening the folder would make it. Once it is open, one trip says whether there is a slot, and what is in it.
  if (folder.opened === undefined && (await isMissing(path))) return undefined;
  const state = await folder.use(async ({ handle }) => {
    try {
      return await inspectSlot(handle, vm.safe);
    } catch (error) {
      // A folder that is gone would be opened again, and so made.
      if (folder.isStale(error) && (await isMissing(path))) return undefined;
      throw error;
    }
  }, 'no-staging');
  return state?.kind === 'absent' ? undefined : state;
}
