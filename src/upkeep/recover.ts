// Repairs a clones folder after crashes and power cuts, while other processes keep using it.

import { inspectSlot } from '../addon/native.js';
import type { Pool } from '../clone/pool.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { settleSlots } from '../folder/settling.js';
import type { SweepReport } from '../folder/sweep-folder.js';
import type { SealedImages } from '../sealed/sealed-images.js';
import { releaseUnlessBusy } from '../slot/release.js';
import { finishCutOffGrow } from '../slot/replace.js';
import { slotNames } from '../slot/slot-names.js';
import { isTorn, isUnstamped, unknownStamp } from '../slot/slot-state.js';
import { asRootfsError, mayNotWrite, withReport } from '../system/errors.js';
import { Failures } from '../system/failures.js';
import { isMissing } from '../system/is-missing.js';
import { inTurn } from '../system/long-work.js';
import { Task } from '../system/task.js';

// Each is lost to somebody who changes the slot at the same moment.
const ROUNDS = 4;

/** What {@link recover} did. */
export interface RecoverReport extends SweepReport {
  /** Sealed images whose templates are gone or were replaced. */
  readonly sealedRemoved: number;
  /** Ready slots in the pool whose templates are gone or were replaced. */
  readonly pooledRemoved: number;
  /** Incomplete slots that were removed, by folder name. */
  readonly tornSlots: readonly string[];
  /** Incomplete slots that were left, because a process has their image open. */
  readonly tornInUse: readonly string[];
  /** Slots, or foreign folders, that hold an image without a stamp. They are left unchanged: release them by id. */
  readonly unstamped: readonly string[];
  /** Slots with a stamp that this library cannot read. They are left unchanged. */
  readonly unknown: readonly string[];
  /** Slots that a crash interrupted while a grown image was published. They were completed or rolled back. */
  readonly settledSlots: readonly string[];
  /** Template or snapshot folders that this process may not write to. Leftovers of dead processes stay there. */
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
  const report = {
    stagingRemoved: 0,
    trashRemoved: 0,
    sealedRemoved: 0,
    pooledRemoved: 0,
    tornSlots: [] as string[],
    tornInUse: [] as string[],
    unstamped: [] as string[],
    unknown: [] as string[],
    settledSlots: [] as string[],
    notSwept: [] as string[],
  };
  const unsettled: string[] = [];
  const failures = new Failures(task);
  const look = (slot: string, round = 1): Promise<void> =>
    folder.use(async ({ handle }) => {
      let state = await inspectSlot(handle, slot);
      if (typeof state.newSizeStamp === 'string') {
        await finishCutOffGrow(handle, slot, signal);
        report.settledSlots.push(slot);
        state = await inspectSlot(handle, slot);
      }
      if (isUnstamped(state)) report.unstamped.push(slot);
      if (unknownStamp(state) !== undefined) report.unknown.push(slot);
      if (!isTorn(state, templateBytes)) {
        // The process that copied it may have been killed before the flush.
        if (state.unsettled !== undefined) unsettled.push(slot);
        return;
      }
      const request = { slot, torn: state.folder, refuseInUse: true };
      const { status } = await releaseUnlessBusy(handle, request);
      // Something in its folder changed: perhaps its flush in the background has just ended.
      if (status === 'absent' && round < ROUNDS) return look(slot, round + 1);
      if (status === 'released') report.tornSlots.push(slot);
      if (status === 'in-use') report.tornInUse.push(slot);
    }, 'no-staging');
  try {
    await failures.attempt(folder.path, async () => {
      for await (const slot of slotNames(folder.path)) {
        if (signal?.aborted) break;
        // A slot on a bad block must not stop the recovery of everything else.
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
    if (isThere) {
      const { statePath } = folder;
      report.sealedRemoved =
        (await failures.attempt(`${statePath}/sealed`, () => sealed.images.collect(failures))) ?? 0;
      report.pooledRemoved = (await failures.attempt(`${statePath}/pool`, () => pool.collect(failures))) ?? 0;
    }
    for (const each of [folder, ...others]) {
      await failures.attempt(each.path, async () => {
        // Create nothing where nothing existed.
        if (await isMissing(each.statePath)) return;
        try {
          const swept = await each.sweep(signal);
          report.stagingRemoved += swept.stagingRemoved;
          report.trashRemoved += swept.trashRemoved;
        } catch (error) {
          // A catalog that is read-only or owned by another user is not ours to clean up.
          if (each === folder || !mayNotWrite(error)) throw error;
          report.notSwept.push(each.path);
        }
      });
    }
    task.checkAborted();
    failures.throwIfAny(report);
    return report;
  } catch (error) {
    // Aborted before the trash was emptied.
    if (report.tornSlots.length > 0) folder.sweepInBackground();
    const failure = asRootfsError(task.what, error);
    const isAnythingDone = Object.values(report).some(
      (done) => (Array.isArray(done) ? done.length : done) > 0,
    );
    throw isAnythingDone ? withReport(failure, report) : failure;
  }
}
