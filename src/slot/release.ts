// Releases slots.

import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type NativeAddon, type NativeFolder, native } from '../addon/native.js';
import { askWithoutTemplate } from '../catalog/templates.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { inUseError } from '../image/open-elsewhere.js';
import { asRootfsError, type RootfsError } from '../system/errors.js';
import { isMissing } from '../system/is-missing.js';
import { inTurn } from '../system/long-work.js';
import { Task } from '../system/task.js';
import { untilUnused } from '../system/until-unused.js';
import { ownerUnknownError, slotBusyError, slotInvalidError, vmIdCollisionError } from './slot-errors.js';
import { CLONE_ROOTFS_FILE } from './stamps.js';
import { rawIdToStore, type VmId } from './vm-id.js';

export interface ReleaseOptions {
  /** Flush the clones folder before the call resolves, so that the slot does not come back after a power cut. */
  readonly durable?: boolean;
  /** Reject with `SLOT_IN_USE` if a process has the image open. */
  readonly refuseInUse?: boolean;
}

type Outcome = Awaited<ReturnType<NativeAddon['releaseSlot']>>;

const BUSY_POLL_MS = 5;
const BUSY_LIMIT_MS = 10_000;

/**
 * Waits for another process that is releasing the slot, or has its image open for an instant. Does not wait long for
 * one that was stopped while it did so.
 */
export async function releaseUnlessBusy(
  path: string,
  handle: NativeFolder,
  request: Parameters<NativeAddon['releaseSlot']>[1],
): Promise<Outcome> {
  const end = performance.now() + BUSY_LIMIT_MS;
  const release = () => native().releaseSlot(handle, request);
  // A flush can take seconds.
  const task = new Task(`releasing ${request.slot}`, undefined);
  const inItsTurn = () => (request.durable ? inTurn(task, release) : release());
  const releaseOnce = async () => {
    const outcome = await inItsTurn();
    if (outcome.status !== 'in-use') return outcome;
    return (await askWithoutTemplate(`${path}/${CLONE_ROOTFS_FILE}`, inItsTurn)) ?? outcome;
  };
  for (;;) {
    const outcome = await untilUnused(releaseOnce, ({ status }) => status === 'in-use');
    if (outcome.status !== 'busy' || performance.now() > end) return outcome;
    await sleep(BUSY_POLL_MS);
  }
}

/** Resolves to false if there was no slot. */
export async function releaseSlot(
  folder: ManagedFolder,
  vm: VmId,
  options: ReleaseOptions,
): Promise<boolean> {
  const path = join(folder.path, vm.safe);
  const what = `releasing ${path}`;
  try {
    // For a slot that is not there no folder is opened or made. `durable` also holds for one that another call
    // released.
    const absent = await isMissing(path);
    if (absent && (!options.durable || (await isMissing(folder.path)))) return false;
    const request = {
      slot: vm.safe,
      rawId: rawIdToStore(vm),
      durable: options.durable,
      refuseInUse: options.refuseInUse,
    };
    const { status, rawId } = await folder.use(
      ({ handle }) => releaseUnlessBusy(path, handle, request),
      'no-staging',
    );
    if (status === 'absent') return false;
    if (status !== 'released') throw notReleasedError(what, path, vm, status, rawId);
    folder.sweepInBackground();
    return true;
  } catch (error) {
    throw asRootfsError(what, error);
  }
}

function notReleasedError(
  what: string,
  path: string,
  vm: VmId,
  status: Exclude<Outcome['status'], 'released' | 'absent'>,
  rawId: string,
): RootfsError {
  switch (status) {
    case 'not-a-slot':
      return slotInvalidError(path);
    case 'torn':
      return ownerUnknownError(path);
    case 'collision':
      return vmIdCollisionError(path, vm, rawId === '' ? vm.safe : rawId);
    case 'in-use':
      return inUseError(`${path}/${CLONE_ROOTFS_FILE}`, path);
    case 'busy':
      return slotBusyError(what, path);
  }
}
