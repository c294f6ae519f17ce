// Putting a clones folder in order after crashes and power cuts, beside live processes.

import { inspectSlot } from '../addon/native.js';
import type { Pool } from '../clone/pool.js';
import type { ManagedFolder, SweepReport } from '../folder/managed-folder.js';
import { settleSlots } from '../folder/settling.js';
import type { SealedImages } from '../sealed/sealed-images.js';
import { releaseUnlessBusy } from '../slot/release.js';
import { finishCutOffGrow } from '../slot/replace.js';
import { slotNames } from '../slot/slot-names.js';
import { isTorn, isUnstamped, unknownStamp } from '../slot/slot-state.js';
import { asRootfsError, mayNotWrite } from '../system/errors.js';
import { Failures } from '../system/failures.js';
import { isMissing } from '../system/is-missing.js';
import { inTurn } from '../system/long-work.js';
import { Task } from '../system/task.js';

/** What {@link recover} did. */
export interface RecoverReport extends SweepReport {
  /** Sealed images of templates that are gone or were replaced. */
  readonly sealedRemoved: number;
  /** Ready slots of the pool of such templates. */
  readonly pooledRemoved: number;
  /** Slots that were not whole and were removed, by folder name. */
  readonly tornSlots: readonly string[];
  /** Slots that are not whole and were left, because some process has their image open. */
  readonly tornInUse: readonly string[];
  /** Slots, or other people's folders, that hold an image without any stamp: left as they are, to be released by their ids. */
  readonly unstamped: readonly string[];
  /** Slots with a stamp that this library can't read: left as they are. */
  readonly unknown: readonly string[];
  /** Slots whose growing had been cut off while it was published, and was completed or undone. */
  readonly settledSlots: readonly string[];
  /** Folders of templates or snapshots that this process may not write to: what dead processes left there stays. */
  readonly notSwept: readonly string[];
}

export async function recover(
  folder: ManagedFolder,
  others: readonly ManagedFolder[],
  sealed: SealedImages,
  pool: Pool,
  templateBytes: (sha256: string) => number | undefined,
  signal: AbortSignal | undefined,
): Promise<RecoverReport> {
  const task = new Task(`recovering ${folder.path}`, signal);
  const tornSlots: string[] = [];
  const tornInUse: string[] = [];
  const settledSlots: string[] = [];
  const unstamped: string[] = [];
  const unknown: string[] = [];
  const unsettled: string[] = [];
  const notSwept: string[] = [];
  const failures = new Failures(task);
  const look = (slot: string) =>
    folder.use(async ({ handle }) => {
      let state = await inspectSlot(handle, slot);
      if (typeof state.newSizeStamp === 'string') {
        await finishCutOffGrow(handle, slot, signal);
        settledSlots.push(slot);
        state = await inspectSlot(handle, slot);
      }
      if (isUnstamped(state)) unstamped.push(slot);
      if (unknownStamp(state) !== undefined) unknown.push(slot);
      if (!isTorn(state, templateBytes)) {
        // Whoever copied it may have been killed before the flush.
        if (state.unsettled !== undefined) unsettled.push(slot);
        return;
      }
      const { status } = await releaseUnlessBusy(handle, { slot, torn: state.folder, refuseInUse: true });
      if (status === 'released') tornSlots.push(slot);
      if (status === 'in-use') tornInUse.push(slot);
    }, 'no-staging');
  try {
    await failures.attempt(folder.path, async () => {
      for await (const slot of slotNames(folder.path)) {
        if (signal?.aborted) break;
        // A slot on a bad block must not keep the others, and all the rest, from being put in order.
        await failures.attempt(`${folder.path}/${slot}`, () => look(slot));
      }
    });
    task.checkAborted();
    if (unsettled.length > 0) {
      await failures.attempt(folder.path, () =>
        folder.use(({ handle }) => inTurn(task, () => settleSlots(handle, unsettled))),
      );
    }
    const isThere = !(await isMissing(folder.path));
    const sealedRemoved = isThere
      ? await failures.attempt(`${folder.statePath}/sealed`, () => sealed.collect())
      : 0;
    const pooledRemoved = isThere
      ? await failures.attempt(`${folder.statePath}/pool`, () => pool.collect())
      : 0;
    let stagingRemoved = 0;
    let trashRemoved = 0;
    for (const each of [folder, ...others]) {
      // Nothing is made where nothing was.
      if (await isMissing(each.statePath)) continue;
      await failures.attempt(each.path, async () => {
        try {
          const swept = await each.sweep(signal);
          stagingRemoved += swept.stagingRemoved;
          trashRemoved += swept.trashRemoved;
        } catch (error) {
          // A catalog on a read-only image, or another user's, has its own keeper.
          if (each === folder || !mayNotWrite(error)) throw error;
          notSwept.push(each.path);
        }
      });
    }
    task.checkAborted();
    failures.throwIfAny();
    return {
      stagingRemoved,
      trashRemoved,
      sealedRemoved: sealedRemoved ?? 0,
      pooledRemoved: pooledRemoved ?? 0,
      tornSlots,
      tornInUse,
      unstamped,
      unknown,
      settledSlots,
      notSwept,
    };
  } catch (error) {
    throw asRootfsError(task.what, error);
  }
}
