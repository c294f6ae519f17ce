// The files in a slot. Other programs on the host share the formats of the clone and the stamps. The addon writes
// stamps with mode 0644: everybody may read them, only the owner of the slot writes them. The sticky bit of a digest's
// stamp says that the slot has a raw id as well (kStampOfRawId in native/slot/slot_state.h).
import type { SmallFile } from '../addon/native.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { isSha256 } from '../system/sha256.js';
import type { VmId } from './vm-id.js';

/** The file name of a clone. */
export const CLONE_ROOTFS_FILE = 'rootfs.ext4';
/** Holds the template's SHA-256 at clone time: 64 lower-case hex digits. */
export const CLONE_STAMP_FILE = 'rootfs.ext4.sha256';
/** Holds the size that the clone was grown to: decimal bytes. */
export const CLONE_SIZE_STAMP_FILE = 'rootfs.ext4.size';

/** The digest in a stamp, in lower case; undefined if it is missing, torn or nothing that this library reads. */
export function parseStamp(file: SmallFile): string | undefined {
  const text = file?.trim().toLowerCase();
  return isSha256(text) ? text : undefined;
}

/** The size in a size stamp; undefined if there is none, NaN if it is torn or nothing that this library reads. */
export function parseSizeStamp(file: SmallFile): number | undefined {
  if (file === undefined) return undefined;
  const text = file?.trim() ?? '';
  const size = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
  return Number.isSafeInteger(size) ? size : Number.NaN;
}

/** Whether a file has no contents, or only zeros: what a power cut leaves of one. */
export function isEmptied(file: SmallFile): boolean {
  return typeof file === 'string' && /^[\0\s]*$/.test(file);
}

/** Holds the raw VM id in UTF-8, only if sanitising changed it. */
export const CLONE_RAW_ID_FILE = 'rootfs.ext4.id';

/** Holds the name of the stack that the slot was cloned of, in UTF-8, only where the digest does not identify it. */
const CLONE_STACK_FILE = 'rootfs.ext4.stack';

/** Holds the id of the boot in which the image was copied. It goes when the image's data has been flushed. */
export const CLONE_UNSETTLED_FILE = 'rootfs.ext4.unsettled';

/** The files beside every clone of a template at one size: name, contents, name, contents, … */
export function sidecarsOf(slot: {
  readonly sha256: string;
  readonly stack: string | undefined;
  readonly sizeStamp: number | undefined;
}): string[] {
  const sidecars = [CLONE_STAMP_FILE, slot.sha256];
  if (slot.stack !== undefined) sidecars.push(CLONE_STACK_FILE, slot.stack);
  if (slot.sizeStamp !== undefined) sidecars.push(CLONE_SIZE_STAMP_FILE, `${slot.sizeStamp}`);
  return sidecars;
}

/** The raw id's sidecar, which only some slots have. */
export function rawIdFile(rawId: string | undefined): string[] {
  return rawId === undefined ? [] : [CLONE_RAW_ID_FILE, rawId];
}

/** The path of a VM's image. */
export function imagePath(folder: ManagedFolder, vm: VmId): string {
  return `${folder.path}/${vm.safe}/${CLONE_ROOTFS_FILE}`;
}
