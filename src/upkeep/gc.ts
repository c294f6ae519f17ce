// Releases every slot that is no longer wanted.

import { inspectSlot } from '../addon/native.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { releaseUnlessBusy } from '../slot/release.js';
import { healthOf } from '../slot/slot-info.js';
import { slotNames } from '../slot/slot-names.js';
import { imageInUse } from '../slot/slot-use.js';
import { asRootfsError, withReportOfWork } from '../system/errors.js';
import { Failures } from '../system/failures.js';
import type { LargeSet } from '../system/large-set.js';
import { Task } from '../system/task.js';

/** What {@link collectGarbage} did, or would do with `dryRun`. Ids are raw: as passed to `cloneForVm`. */
export interface GcReport {
  readonly released: readonly string[];
  /** Not wanted, but a process has the image open. */
  readonly inUse: readonly string[];
  /**
   * Not wanted, but left, because this filesystem cannot tell whether the image is open (FUSE, NFS). Release them by
   * id.
   */
  readonly unknown: readonly string[];
}

export async function collectGarbage(
  folder: ManagedFolder,
  keep: LargeSet,
  dryRun: boolean,
  signal: AbortSignal | undefined,
): Promise<GcReport> {
  const task = new Task(`collecting slots in ${folder.path}`, signal);
  const report = { released: [] as string[], inUse: [] as string[], unknown: [] as string[] };
  const failures = new Failures(task);
  const collect = (slot: string) =>
    folder.use(async ({ handle }) => {
      const state = await inspectSlot(handle, slot);
      // `recover()` handles torn slots. Folders that are not our slots, or cannot be read reliably, are left alone.
      if (healthOf(state, undefined) !== 'whole') return;
      const rawId = state.rawId ?? slot;
      // A list may hold the names of the slots' folders instead of raw ids. Another program that writes a raw id may
      // end it with a line's end.
      if ([rawId, rawId.trimEnd(), slot].some((id) => keep.has(id))) return;
      const use = await imageInUse(`${folder.path}/${slot}`);
      if (use === 'in-use') report.inUse.push(rawId);
      if (use === 'unknown') report.unknown.push(rawId);
      if (use === 'unused' && dryRun) report.released.push(rawId);
      if (use !== 'unused' || dryRun) return;
      const request = { slot, rawId: state.rawId ?? undefined, refuseInUse: true };
      const { status } = await releaseUnlessBusy(`${folder.path}/${slot}`, handle, request);
      if (status === 'released') report.released.push(rawId);
      if (status === 'in-use') report.inUse.push(rawId);
    }, 'no-staging');
  try {
    let isOpen = false;
    for (const slot of await slotNames(folder.path)) {
      task.checkAborted();
      if (!isOpen) await folder.open();
      isOpen = true;
      await failures.attempt(`${folder.path}/${slot}`, () => collect(slot));
    }
    failures.throwIfAny();
    return report;
  } catch (error) {
    throw withReportOfWork(asRootfsError(task.what, error), report);
  } finally {
    if (report.released.length > 0) folder.sweepInBackground();
  }
}
