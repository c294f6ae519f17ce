// Empties a managed folder's trash and removes what dead processes left in its staging.

import { setTimeout as sleep } from 'node:timers/promises';
import { type NativeFolder, native } from '../addon/native.js';
import type { SystemError } from '../system/errors.js';
import { inTurn } from '../system/long-work.js';
import type { Task } from '../system/task.js';

/** What a sweep removed. */
export interface SweepReport {
  readonly stagingRemoved: number;
  readonly trashRemoved: number;
}

// Files and folders per slice.
const SWEEP_BUDGET = 64;

// What stays open for longer, 0.3 s in all, is removed by a later sweep.
const STILL_OPEN_SWEEPS = 5;
const STILL_OPEN_FIRST_REST_MS = 10;

/** A report to add to. */
export type SweepCounts = { -readonly [Count in keyof SweepReport]: number };

/**
 * Sweeps a folder slice by slice, with a rest after each that is as long as the slice, at most `restLimitMs`. Rejects
 * at the end with the first error of what could not be removed; all else has been, and is counted.
 */
export async function sweepFolder(
  task: Task,
  handle: NativeFolder,
  restLimitMs: number,
  counts: SweepCounts,
): Promise<void> {
  let firstError: SystemError | undefined;
  for (let more = true, stillOpenSweeps = 0; more; ) {
    const started = performance.now();
    const report = await inTurn(task, () => native().sweep(handle, SWEEP_BUDGET));
    counts.stagingRemoved += report.stagingRemoved;
    counts.trashRemoved += report.trashRemoved;
    firstError ??= report.error;
    // FUSE closes files a moment after their last user has.
    const again = report.stillOpen && stillOpenSweeps < STILL_OPEN_SWEEPS;
    if (again) await sleep(STILL_OPEN_FIRST_REST_MS * 2 ** stillOpenSweeps++);
    more = report.more || again;
    if (more && restLimitMs > 0) await sleep(Math.min(restLimitMs, performance.now() - started));
  }
  if (firstError !== undefined) throw firstError;
}
