// Whether a VM has its slot's image open.
import type { ClonesFolder } from './clones-folder.js';
import { failedWith, rootfsError } from './errors.js';
import { isMissing } from './is-missing.js';
import { inspectSlot, native } from './native.js';
import { requireOwnId, slotInvalid, slotNotFound } from './slot-state.js';
import { CLONE_ROOTFS_FILE } from './stamps.js';
import type { VmId } from './vm-id.js';

/** `unknown` where the filesystem has no leases: FUSE, NFS; and for an image of another user, without CAP_LEASE. */
export type SlotUse = 'in-use' | 'unused' | 'unknown';

export async function slotInUse(folder: ClonesFolder, vm: VmId): Promise<SlotUse> {
  const path = `${folder.path}/${vm.safe}`;
  try {
    if (await isMissing(path)) throw slotNotFound(path, vm);
    const state = await folder.use(({ store }) => inspectSlot(store, vm.safe));
    if (state.kind === 'absent') throw slotNotFound(path, vm);
    if (state.kind === 'foreign') throw slotInvalid(path);
    requireOwnId(path, vm, state);
    return await imageInUse(path);
  } catch (error) {
    throw rootfsError(`looking whether ${path} is in use`, error);
  }
}

/** Of a slot's folder. One without an image is used by nobody. */
export async function imageInUse(slotPath: string): Promise<SlotUse> {
  try {
    const open = await native().openElsewhere(`${slotPath}/${CLONE_ROOTFS_FILE}`);
    return open === undefined ? 'unknown' : open ? 'in-use' : 'unused';
  } catch (error) {
    // Whoever has a lease on it, which makes opening it fail, has it open.
    if (failedWith(error, 'EAGAIN')) return 'in-use';
    if (failedWith(error, 'ENOENT') || failedWith(error, 'EINVAL')) return 'unused';
    throw error;
  }
}
