// Tells whether a VM has its slot's image open.

import { askWithoutTemplate } from '../catalog/templates.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { inUseError, isOpenElsewhere } from '../image/open-elsewhere.js';
import { asRootfsError, failedWith } from '../system/errors.js';
import { untilUnused } from '../system/until-unused.js';
import { lookAtSlot } from './look-at-slot.js';
import { slotNotFoundError } from './slot-errors.js';
import { requireOwnId, requireSlot } from './slot-state.js';
import { CLONE_ROOTFS_FILE } from './stamps.js';
import type { VmId } from './vm-id.js';

/**
 * `unknown` if the file system has no leases (FUSE, NFS), or for another user's image without CAP_LEASE and CAP_SETUID.
 */
export type SlotUse = 'in-use' | 'unused' | 'unknown';

export async function slotInUse(folder: ManagedFolder, vm: VmId): Promise<SlotUse> {
  const path = `${folder.path}/${vm.safe}`;
  try {
    const state = await lookAtSlot(folder, vm);
    if (state === undefined) throw slotNotFoundError(path, vm);
    requireSlot(path, state);
    requireOwnId(path, vm, state);
    return await imageInUse(path);
  } catch (error) {
    throw asRootfsError(`checking whether ${path} is in use`, error);
  }
}

/** Opens an image. Rejects with `SLOT_IN_USE` if a process keeps a lease on it, as a VMM may on its own disk. */
export async function openUnleased<T>(imagePath: string, open: () => Promise<T>): Promise<T> {
  // Whoever asks whether the image is in use has a lease for an instant.
  const opened = await untilUnused(
    () =>
      open().catch((error: unknown) => {
        if (failedWith(error, 'EAGAIN')) return undefined;
        throw error;
      }),
    (found) => found === undefined,
  );
  if (opened !== undefined) return opened;
  throw inUseError(imagePath);
}

/**
 * For a slot's folder. A folder without an image is unused. `mustKnow`: rejects with EACCES where another process with
 * more privileges would be told.
 */
export async function imageInUse(slotPath: string, mustKnow = false): Promise<SlotUse> {
  const image = `${slotPath}/${CLONE_ROOTFS_FILE}`;
  const ask = () => isOpenElsewhere(image, mustKnow);
  try {
    const first = await ask();
    const open = first === true ? ((await askWithoutTemplate(image, ask)) ?? first) : first;
    return open === undefined ? 'unknown' : open ? 'in-use' : 'unused';
  } catch (error) {
    if (failedWith(error, 'ENOENT', 'EINVAL', 'ELOOP')) return 'unused';
    // It belongs to a VMM that alone may open it.
    if (failedWith(error, 'EACCES') && !mustKnow) return 'unknown';
    throw asRootfsError(`checking whether ${slotPath} is in use`, error);
  }
}
