// Opens an existing slot's image for reading: to fork, snapshot or export it.

import { setTimeout as sleep } from 'node:timers/promises';
import { type Identity, sameImage, sameState } from '../addon/identity.js';
import {
  inspectSlot,
  type NativeSource,
  native,
  type OpenedSource,
  type SlotState,
} from '../addon/native.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import type { OpenFolder } from '../folder/open-folder.js';
import { inUseError } from '../image/open-elsewhere.js';
import { asRootfsError, failedWith, RootfsError } from '../system/errors.js';
import { isMissing } from '../system/is-missing.js';
import { Task } from '../system/task.js';
import { Turns } from '../system/turns.js';
import { untilUnused } from '../system/until-unused.js';
import { finishCutOffGrow } from './replace.js';
import { imageLongerError, slotBusyError, slotNotFoundError, slotTornError } from './slot-errors.js';
import { readSlot } from './slot-state.js';
import { imageInUse, openUnleased } from './slot-use.js';
import { CLONE_ROOTFS_FILE } from './stamps.js';
import type { VmId } from './vm-id.js';

/** What a slot's own files record, and its image. */
export interface SlotImage extends OpenedSource {
  readonly path: string;
  readonly identity: Identity;
  readonly state: SlotState;
  readonly sourceSha256: string;
  readonly sizeStamp: number | undefined;
}

// A round is lost only to somebody who grows or releases the slot at the same moment.
const ROUNDS = 16;

/** The size of the template that slots of this digest and stack were cloned from. Undefined if not known. */
export type TemplateBytes = (sha256: string, stack: string | undefined) => Promise<number | undefined>;

// Each holds its image open while it waits for its turn to read it, and perhaps the file that it makes. A process has
// few descriptors.
const reading = new Turns(32);

// Disks of an unknown length. Reading one may take an hour, and no other disk may have to wait for that.
const readingUnknown = new Turns(8);

// The longest disk to read if its template is not known any more: as long as publishing takes by default.
export const UNKNOWN_BYTES_LIMIT = 2 ** 40;

export interface SlotImageRequest {
  /** Reject with `SLOT_IN_USE` if a process has the image open. */
  readonly refuseInUse: boolean;
  readonly templateBytes: TemplateBytes;
  readonly signal: AbortSignal | undefined;
}

/** Ends the turn when nothing of the slot is open any more, though there is more to do. */
type SlotWork<T> = (image: SlotImage, folder: OpenFolder, endTurn: () => void) => Promise<T | undefined>;

/**
 * Runs `work` with the image of a complete slot. Where it resolves to undefined, the slot was released or got another
 * image meanwhile, and it runs again with the one that is there now. Rejects with `SLOT_NOT_FOUND`, `SLOT_INVALID`,
 * `SLOT_TORN`, `VM_ID_COLLISION`, `SLOT_IN_USE`, `SLOT_BUSY`, `ABORT_ERR`.
 */
export async function withSlotImage<T>(
  folder: ManagedFolder,
  vm: VmId,
  request: SlotImageRequest,
  work: SlotWork<T>,
): Promise<T> {
  const path = `${folder.path}/${vm.safe}`;
  // Create nothing for a slot that does not exist.
  if (folder.opened === undefined && (await isMissing(path))) throw slotNotFoundError(path, vm);
  const task = new Task(`opening the slot ${path}`, request.signal);
  const openInTurn = (mayBeUnknown: boolean) => (endTurn: () => void) =>
    openInRounds(folder, vm, request, (image, open) => work(image, open, endTurn), mayBeUnknown);
  const done = await reading.run(task, openInTurn(false));
  if (done !== 'unknown-length') return done;
  return readingUnknown.run(task, openInTurn(true)) as Promise<T>;
}

/** Resolves to `unknown-length`, with no work done, if the length is unknown and not `mayBeUnknown`. */
function openInRounds<T>(
  folder: ManagedFolder,
  vm: VmId,
  { refuseInUse, templateBytes, signal }: SlotImageRequest,
  work: (image: SlotImage, folder: OpenFolder) => Promise<T | undefined>,
  mayBeUnknown: boolean,
): Promise<T | 'unknown-length'> {
  const path = `${folder.path}/${vm.safe}`;
  return folder.use(async (open) => {
    for (let round = 0; round < ROUNDS; round++) {
      if (round > 0) await sleep(round);
      // Check before this process opens it too.
      const inUse = refuseInUse && (await staysInUse(path));
      const image = await openSlotImage(path, open, vm, signal);
      if (image === undefined) continue;
      try {
        if (inUse) throw inUseError(`${path}/${CLONE_ROOTFS_FILE}`, path);
        const isKnown = await requireExpectedLength(path, image, templateBytes);
        if (!isKnown && !mayBeUnknown) return 'unknown-length';
        const done = await work(image, open);
        if (done !== undefined) return done;
      } finally {
        native().dispose(image.source);
      }
    }
    throw slotBusyError(`opening the slot ${path}`, path);
  });
}

async function staysInUse(path: string): Promise<boolean> {
  return (
    (await untilUnused(
      () => imageInUse(path, true),
      (use) => use === 'in-use',
    )) === 'in-use'
  );
}

/**
 * Whether the length is known. A VMM can make its image as long as the filesystem allows, and reading that would take
 * years.
 */
async function requireExpectedLength(
  path: string,
  { identity, sizeStamp, sourceSha256, state }: SlotImage,
  templateBytes: TemplateBytes,
): Promise<boolean> {
  const { sizeBytes } = identity;
  const expected = sizeStamp ?? (await templateBytes(sourceSha256, state.stack || undefined));
  if (expected === undefined && sizeBytes > UNKNOWN_BYTES_LIMIT)
    throw slotTornError(
      path,
      `${CLONE_ROOTFS_FILE} has ${sizeBytes} bytes, and a disk whose template is gone may have ` +
        `${UNKNOWN_BYTES_LIMIT}`,
    );
  if (expected === undefined || expected === sizeBytes) return expected !== undefined;
  if (expected > sizeBytes)
    throw slotTornError(path, `${CLONE_ROOTFS_FILE} has ${sizeBytes} bytes rather than ${expected}`);
  throw imageLongerError(path, sizeBytes, sizeStamp, expected);
}

/** Undefined if the image was replaced between the two looks, because then the stamps may not belong to it. */
async function openSlotImage(
  path: string,
  { handle }: OpenFolder,
  vm: VmId,
  signal: AbortSignal | undefined,
): Promise<SlotImage | undefined> {
  const imagePath = `${path}/${CLONE_ROOTFS_FILE}`;
  // Wait for both before rejecting. Otherwise the image would stay open.
  const [looked, opened] = await Promise.all([
    inspectSlot(handle, vm.safe).catch((error: unknown) => ({ failed: error })),
    openUnleased(imagePath, () => native().openSource(imagePath)).catch((error: unknown) => ({ error })),
  ]);
  const source = 'source' in opened ? opened.source : undefined;
  try {
    if ('failed' in looked) throw asRootfsError(`opening the slot ${path}`, looked.failed);
    const state = looked;
    if (state.kind === 'absent') throw slotNotFoundError(path, vm);
    const slot = readSlot(path, vm, state);
    if (slot === 'grow-cut-off') {
      await finishCutOffGrow(handle, vm.safe, signal);
      if (source !== undefined) native().dispose(source);
      return undefined;
    }
    if ('error' in opened) {
      if (failedWith(opened.error, 'ENOENT')) return undefined;
      throw asRootfsError(`opening ${imagePath}`, opened.error);
    }
    const { identity } = opened.info;
    if (sameImage(slot.image.identity, identity)) {
      const { sha256: sourceSha256, sizeStamp } = slot;
      return { ...opened, path: imagePath, identity, state, sourceSha256, sizeStamp };
    }
    native().dispose(opened.source);
    return undefined;
  } catch (error) {
    if (source !== undefined) native().dispose(source);
    throw error;
  }
}

/** Called after an image was read. Rejects with `SOURCE_CHANGED` if somebody wrote to it meanwhile. */
export async function requireUnchanged(what: string, source: NativeSource, before: Identity): Promise<void> {
  const { info } = await native().checkSource(source);
  if (!sameState(before, info.identity)) throw sourceChangedError(what);
}

export function sourceChangedError(what: string): RootfsError {
  return new RootfsError(
    'SOURCE_CHANGED',
    `${what}: the image was written to while it was read, so the copy may be inconsistent and was thrown ` +
      'away; pause the VM and try again',
  );
}
