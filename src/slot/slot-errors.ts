// The errors that say what is wrong with a slot, and what to do about it.

import type { Template } from '../catalog/template.js';
import { RootfsError } from '../system/errors.js';
import {
  CLONE_RAW_ID_FILE,
  CLONE_ROOTFS_FILE,
  CLONE_SIZE_STAMP_FILE,
  CLONE_STAMP_FILE,
  CLONE_UNSETTLED_FILE,
} from './stamps.js';
import { safeVmId, type VmId } from './vm-id.js';

/** Its VM may use the whole of it (`qemu-img resize` and others make a disk longer), so no advice may lose it. */
export function imageLongerError(
  path: string,
  imageBytes: number,
  sizeStamp: number | undefined,
  expectedBytes: number,
): RootfsError {
  const file = `${path}/${CLONE_ROOTFS_FILE}`;
  if (sizeStamp === undefined)
    return new RootfsError(
      'SLOT_TORN',
      `${file} has ${imageBytes} bytes, the template ${expectedBytes}, and there is no ${CLONE_SIZE_STAMP_FILE}: a ` +
        `grow was interrupted, or another program made it longer; ask for ${imageBytes} bytes to finish`,
      { path },
    );
  return new RootfsError(
    'SIZE_STAMP_MISMATCH',
    `${file} has ${imageBytes} bytes, and ${CLONE_SIZE_STAMP_FILE} says ${expectedBytes}: another program made it ` +
      `longer. Write ${imageBytes} to ${CLONE_SIZE_STAMP_FILE} if the VM is to have that size`,
    { path },
  );
}

/** Somebody has linked the image: a jail, a backup, or its VMM. */
export function otherLinksError(vm: VmId, links: number): RootfsError {
  return new RootfsError(
    'SHARED_INODE',
    `the disk of VM "${vm.raw}" has ${links} hardlinks, and exportTo did not make all of them. ` +
      'Owner and mode would change for all: remove the others, or leave owner and mode out',
  );
}

export function vmIdCollisionError(path: string, vm: VmId, owner: string): RootfsError {
  // The names of the slots tell, not the ids: "ä" and "Ä" both become "_" on any file system.
  const isOneName = vm.safe === safeVmId(owner);
  const advice = isOneName
    ? 'use ids of ASCII letters, digits, "-" and "_"'
    : 'this file system does not tell upper from lower case, so use ids that differ in more than case';
  return new RootfsError(
    'VM_ID_COLLISION',
    `VM ids ${JSON.stringify(vm.raw)} and ${JSON.stringify(owner)} have the same folder, ${path}, which ` +
      `belongs to the latter: ${advice}`,
    { path },
  );
}

export function stampMismatchError(path: string, stamp: string, template: Template): RootfsError {
  return new RootfsError(
    'STAMP_MISMATCH',
    `${path} was cloned from a template with digest ${stamp}, but ${template.path} has ${template.sha256} now: ` +
      'stop the VM and release the slot first; a new clone under a running VM would corrupt its disk',
    { path },
  );
}

export function slotNotFoundError(path: string, vm: VmId): RootfsError {
  return new RootfsError(
    'SLOT_NOT_FOUND',
    `VM ${vm.safe} has no slot: ${path} does not exist, or is an empty folder; clone it first`,
    { path },
  );
}

/** `what` was done again each time that another process had changed it. */
export function slotBusyError(what: string, path: string, changed = 'the slot'): RootfsError {
  const message = `${what}: another process keeps changing ${changed} at the same moment; try again`;
  return new RootfsError('SLOT_BUSY', message, { path });
}

export function slotInvalidError(path: string): RootfsError {
  return new RootfsError(
    'SLOT_INVALID',
    `${path} is not a slot: it is a file, a symbolic link or a folder with other contents. It was left as it is; ` +
      'move it away',
    { path },
  );
}

export function slotTornError(path: string, how: string): RootfsError {
  return new RootfsError(
    'SLOT_TORN',
    `${path} is incomplete, and is not handed out: ${how}; stop the VM if it runs, then release the slot`,
    {
      path,
    },
  );
}

/** A power cut can leave a slot so; whoever keeps an image there can, too. */
export function unstampedError(path: string): RootfsError {
  return new RootfsError(
    'SLOT_TORN',
    `${path} holds an image and no ${CLONE_STAMP_FILE}, so nothing says whose disk it is, and it is not handed out: ` +
      'move the image away if somebody keeps it there; else stop the VM if it runs, then release the slot',
    { path },
  );
}

/** No id can release it. */
export function ownerUnknownError(path: string): RootfsError {
  return new RootfsError(
    'SLOT_TORN',
    `${path} does not say whose slot it is, and is neither handed out nor released: ${CLONE_RAW_ID_FILE} is missing, ` +
      'empty or unreadable. Write the raw id to it; or call recover(), which removes the slot if a crash can have ' +
      'left it so',
    { path },
  );
}

const HELD: Readonly<Record<string, string>> = {
  [CLONE_STAMP_FILE]: 'no digest of 64 hex digits',
  [CLONE_UNSETTLED_FILE]: 'no id of a boot',
};

/** For a file that `unknownFile` found. Another program may understand it. */
export function unknownFileError(path: string, file: string): RootfsError {
  if (file === CLONE_ROOTFS_FILE)
    return new RootfsError(
      'SLOT_INVALID',
      `${path}/${file} is a symbolic link, a folder or a device, which the library never makes. The slot is not ` +
        'handed out, and recover() leaves it alone: put the disk itself there, or release the slot',
      { path: `${path}/${file}` },
    );
  const holds = HELD[file] ?? 'no number of bytes';
  const correct =
    file === CLONE_UNSETTLED_FILE ? 'remove the file if the disk is whole (e2fsck -fn)' : 'correct the file';
  return new RootfsError(
    'STAMP_INVALID',
    `${path}/${file} holds ${holds}. The slot is not handed out, and recover() leaves it alone: ${correct}, or ` +
      'release the slot',
    { path: `${path}/${file}` },
  );
}
