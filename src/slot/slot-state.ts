// Decides whether an existing slot may be handed out, whatever other programs, crashes and power cuts have left in it.

import { type Identity, identical, sameImage } from '../addon/identity.js';
import type { FileInfo, SlotFacts, SlotState } from '../addon/native.js';
import type { Template } from '../catalog/template.js';
import { RootfsError } from '../system/errors.js';
import type { Strategy } from '../system/strategy.js';
import {
  imageLongerError,
  ownerUnknownError,
  slotInvalidError,
  slotTornError,
  stampMismatchError,
  unknownFileError,
  unstampedError,
  vmIdCollisionError,
} from './slot-errors.js';
import {
  CLONE_RAW_ID_FILE,
  CLONE_ROOTFS_FILE,
  CLONE_SIZE_STAMP_FILE,
  CLONE_STAMP_FILE,
  CLONE_UNSETTLED_FILE,
  isEmptied,
  parseSizeStamp,
  parseStamp,
} from './stamps.js';
import { isNoMark, isOfAnotherBoot, isOfUnknownBoot } from './unsettled.js';
import type { VmId } from './vm-id.js';

/** The state of a slot's folder that has an image. */
export type SlotWithImage = SlotState & { readonly image: FileInfo; readonly folder: Identity };

/** Whether two looks saw the same slot in the same state. Its image may have other contents. */
export function isSameSlot(before: SlotState, now: SlotState): boolean {
  if (before.folder === undefined || now.folder === undefined || !identical(before.folder, now.folder))
    return false;
  if (before.image === undefined || now.image === undefined) return false;
  return (
    sameImage(before.image.identity, now.image.identity) &&
    before.stamp === now.stamp &&
    before.sizeStamp === now.sizeStamp &&
    before.newSizeStamp === now.newSizeStamp &&
    before.rawId === now.rawId &&
    before.stack === now.stack
  );
}

/** A slot whose own files say whose it is, what it was cloned of and how long it is. */
interface WholeSlot {
  readonly state: SlotWithImage;
  readonly image: FileInfo;
  readonly sha256: string;
  readonly sizeStamp: number | undefined;
}

/** A complete slot of the requesting VM. */
export interface AssessedSlot extends WholeSlot {
  readonly templateBytes: number;
}

/**
 * Judges a slot by its own files, for every call that hands it out or reads its image: what is wrong with it has the
 * same code and advice for all. `grow-cut-off`: the process that grew it was killed while it published; complete or
 * undo that, then look again.
 */
export function readSlot(path: string, vm: VmId, state: SlotState): WholeSlot | 'grow-cut-off' {
  requireSlot(path, state);
  if (isUnstamped(state)) throw unstampedError(path);
  // After a power cut btrfs can bring back a slot's folder without some of its files, so that nothing says whose it
  // was.
  if (isUnowned(state)) throw slotTornError(path, `it has no ${CLONE_STAMP_FILE}`);
  requireOwnId(path, vm, state);
  if (typeof state.newSizeStamp === 'string') return 'grow-cut-off';
  const unknown = unknownFile(state);
  if (unknown !== undefined) throw unknownFileError(path, unknown);
  const sizeStamp = parseSizeStamp(state.sizeStamp);
  if (Number.isNaN(sizeStamp)) throw slotTornError(path, `${CLONE_SIZE_STAMP_FILE} holds no size`);
  requireSettled(path, state);
  const sha256 = parseStamp(state.stamp);
  if (sha256 === undefined) throw slotTornError(path, `${CLONE_STAMP_FILE} holds no digest`);
  requireImage(path, state);
  return { state, image: state.image, sha256, sizeStamp };
}

/** Whether the slot may be handed out for the request. */
export function assessSlot(
  path: string,
  request: { readonly vm: VmId; readonly sizeBytes: number | undefined },
  template: Template,
  state: SlotState,
): AssessedSlot | 'grow-cut-off' {
  const slot = readSlot(path, request.vm, state);
  if (slot === 'grow-cut-off') return slot;
  const { image, sha256, sizeStamp } = slot;
  requireSize(path, sizeStamp, request.sizeBytes);
  if (sha256 !== template.sha256) throw stampMismatchError(path, sha256, template);
  const templateBytes = template.identity.sizeBytes;
  requireLength(path, image.identity.sizeBytes, sizeStamp, templateBytes, request.sizeBytes);
  return { ...slot, templateBytes };
}

/** Throws `SLOT_INVALID` for what no slot is. */
export function requireSlot(
  path: string,
  state: SlotState,
): asserts state is SlotState & { folder: Identity } {
  if (state.kind === 'not-a-folder' || state.folder === undefined || isForeignFolder(state))
    throw slotInvalidError(path);
}

/** The size that the slot was grown to must be the one that was asked for. */
function requireSize(path: string, sizeStamp: number | undefined, wantedBytes: number | undefined): void {
  if (wantedBytes === undefined || sizeStamp === undefined || sizeStamp === wantedBytes) return;
  throw new RootfsError(
    'SIZE_STAMP_MISMATCH',
    `${path} was grown to ${sizeStamp} bytes, but ${wantedBytes} were requested: release the ` +
      'slot first, or request its size',
    { path },
  );
}

function requireSettled(path: string, state: SlotState): void {
  // The slot itself may be whole, so the message must not advise to release it.
  if (isOfUnknownBoot(state))
    throw new RootfsError(
      'SLOT_TORN',
      `${path} is not handed out: its copied image may not have reached the disk, and this process cannot tell, ` +
        "since it does not see the kernel's /proc/sys/kernel/random/boot_id; mount /proc here, or let a process that " +
        'sees it call recover()',
      { path },
    );
  if (isOfAnotherBoot(state))
    throw slotTornError(path, 'the machine went down before its copied image had reached the disk');
}

function requireImage(path: string, state: SlotState & { folder: Identity }): asserts state is SlotWithImage {
  if (state.image === undefined) throw slotTornError(path, `${CLONE_ROOTFS_FILE} is missing`);
  if (state.image.identity.sizeBytes === 0) throw slotTornError(path, `${CLONE_ROOTFS_FILE} is empty`);
}

function requireLength(
  path: string,
  imageBytes: number,
  sizeStamp: number | undefined,
  templateBytes: number,
  wantedBytes: number | undefined,
): void {
  // No clone is shorter than its template, whatever its size stamp says.
  const expectedBytes = Math.max(sizeStamp ?? 0, templateBytes);
  if (imageBytes < expectedBytes)
    throw slotTornError(path, `${CLONE_ROOTFS_FILE} has ${imageBytes} bytes rather than ${expectedBytes}`);
  const growGoesOn = wantedBytes !== undefined && wantedBytes > templateBytes;
  if (growGoesOn || !isLonger(imageBytes, sizeStamp, templateBytes)) return;
  throw imageLongerError(path, imageBytes, sizeStamp, templateBytes);
}

function isLonger(imageBytes: number, sizeStamp: number | undefined, templateBytes: number): boolean {
  return sizeStamp === undefined && imageBytes > templateBytes;
}

/**
 * Whether the image is longer than its template, and nothing says why: a grow was interrupted, or another program made
 * it longer. It is not handed out as it is; its VM may use the whole of it.
 */
export function isOddlyLong(state: SlotFacts, templateBytes: number | undefined): boolean {
  if (state.image === undefined || templateBytes === undefined || state.newSizeStamp !== undefined)
    return false;
  return isLonger(state.image.identity.sizeBytes, parseSizeStamp(state.sizeStamp), templateBytes);
}

/**
 * Throws `VM_ID_COLLISION` if the slot belongs to another id. A slot that nobody owns counts as any id's, as it does
 * for a release.
 */
export function requireOwnId(path: string, vm: VmId, state: SlotState): void {
  if (isUnowned(state)) return;
  if (state.rawId === null || state.rawId === '') throw ownerUnknownError(path);
  const owner = state.rawId ?? vm.safe;
  if (owner !== vm.raw) throw vmIdCollisionError(path, vm, owner);
}

/** The name of a file that neither this library nor a crash leaves in this state; undefined if there is none. */
export function unknownFile(slot: SlotFacts): string | undefined {
  const { image, stamp, sizeStamp, newSizeStamp, rawId, unsettled } = slot;
  if (image?.regular === false) return CLONE_ROOTFS_FILE;
  if (rawId === null) return CLONE_RAW_ID_FILE;
  if (stamp !== undefined && parseStamp(stamp) === undefined && !isEmptied(stamp)) return CLONE_STAMP_FILE;
  if (Number.isNaN(parseSizeStamp(sizeStamp)) && !isEmptied(sizeStamp)) return CLONE_SIZE_STAMP_FILE;
  if (isNoMark(unsettled)) return CLONE_UNSETTLED_FILE;
  return newSizeStamp === null ? `${CLONE_SIZE_STAMP_FILE}.new` : undefined;
}

/** Whether a slot can never be handed out again, by its own files, and its template's size where that is known. */
export function isTorn(state: SlotFacts, templateBytes: (sha256: string) => number | undefined): boolean {
  if (
    state.kind !== 'folder' ||
    isUnstamped(state) ||
    unknownFile(state) !== undefined ||
    isForeignFolder(state)
  )
    return false;
  if (isOfAnotherBoot(state)) return true;
  const stamp = parseStamp(state.stamp);
  const sizeStamp = parseSizeStamp(state.sizeStamp);
  if (stamp === undefined || Number.isNaN(sizeStamp)) return true;
  if (state.rawId === null || state.rawId === '' || state.image === undefined) return true;
  return state.image.identity.sizeBytes < Math.max(sizeStamp ?? 0, templateBytes(stamp) ?? 1);
}

/**
 * An image without any stamp, not even an empty one. A power cut can leave a slot like that if its guest flushed the
 * image, but so can anybody who keeps an image there.
 */
export function isUnstamped(state: SlotFacts): boolean {
  return state.kind === 'folder' && state.image !== undefined && !state.hasSidecars;
}

/** Whether it has neither a stamp nor a raw id: then nothing says whose it is. */
function isUnowned({ rawId, stamp }: SlotFacts): boolean {
  return rawId === undefined && stamp === undefined;
}

/** A folder with other things in it. An empty folder counts as absent. */
export function isForeignFolder(state: SlotFacts): boolean {
  return state.kind === 'folder' && state.image === undefined && !state.hasSidecars;
}

/** How the image was made, derived from what is on disk. */
export function strategyOf(state: SlotState, sharesInode = hasOtherLinks(state)): Strategy {
  return sharesInode ? 'hardlink' : state.sharesExtents ? 'reflink' : 'copy';
}

/**
 * Whether the image has names that this library did not give it: it is or was a template, or somebody has linked it.
 */
export function hasOtherLinks({ image, exportedNames }: SlotState): boolean {
  return image !== undefined && image.identity.links > 1 + exportedNames;
}
