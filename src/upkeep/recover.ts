// Repairs the clones folder, and sweeps the catalog and the folder of snapshots, after crashes and power cuts, while
// other processes keep using them.

import { access, constants } from 'node:fs/promises';
import { inspectSlot } from '../addon/native.js';
import type { Templates } from '../catalog/templates.js';
import type { Pool } from '../clone/pool.js';
import { flushCopiedSlots } from '../folder/flush-copies.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import type { SweepReport } from '../folder/sweep-folder.js';
import type { SealedImages } from '../sealed/sealed-images.js';
import { releaseUnlessBusy } from '../slot/release.js';
import { finishCutOffGrow } from '../slot/replace.js';
import { slotNames } from '../slot/slot-names.js';
import { isTorn, isUnstamped, unknownFile } from '../slot/slot-state.js';
import { asRootfsError, mayNotWrite, withReportOfWork } from '../system/errors.js';
import { Failures } from '../system/failures.js';
import { isMissing } from '../system/is-missing.js';
import { POOL_FOLDER, SEALED_FOLDER } from '../system/state-folder.js';
import { Task } from '../system/task.js';

// Each is lost to somebody who changes the slot at the same moment.
const ROUNDS = 4;

/** What {@link recover} did. */
export interface RecoverReport extends SweepReport {
  /** Sealed images whose templates are gone or have other bytes now. */
  readonly sealedRemoved: number;
  /** Ready slots in the pool whose templates are gone or have other bytes now. */
  readonly pooledRemoved: number;
  /** Incomplete slots that were removed, by folder name. */
  readonly tornSlots: readonly string[];
  /** Incomplete slots that were left, because a process has their image open. */
  readonly tornInUse: readonly string[];
  /** Slots, or foreign folders, that hold an image without a stamp. They are left unchanged: release them by id. */
  readonly unstamped: readonly string[];
  /**
   * Slots with a stamp, a mark of a boot or a raw id that this library cannot read, or whose image is a symbolic link,
   * a folder or a device. They are left unchanged.
   */
  readonly unknown: readonly string[];
  /** Slots that a crash interrupted while a grown image was published. They were completed or rolled back. */
  readonly settledSlots: readonly string[];
  /** Template or snapshot folders that this process may not write to. Leftovers of dead processes stay there. */
  readonly notSwept: readonly string[];
}

/** What is recovered, and what it is judged by. */
interface RecoverContext {
  /** The clones folder. */
  readonly folder: ManagedFolder;
  /** The catalog and the folder of snapshots. They are only swept. */
  readonly others: readonly ManagedFolder[];
  readonly sealed: SealedImages;
  readonly pool: Pool;
  readonly templates: Templates;
}

export async function recover(
  { folder, others, sealed, pool, templates }: RecoverContext,
  signal: AbortSignal | undefined,
): Promise<RecoverReport> {
  const recovery = new Recovery(folder, templates, signal);
  const { task, failures, report } = recovery;
  try {
    const isOpen = await recovery.open();
    if (isOpen) {
      await recovery.lookAtSlots();
      task.checkAborted();
      await recovery.flushCopies();
      await recovery.collect(sealed, pool);
    }
    await recovery.sweep(isOpen ? [folder, ...others] : others);
    task.checkAborted();
    failures.throwIfAny();
    return report;
  } catch (error) {
    // Aborted before the trash was emptied.
    if (report.tornSlots.length > 0) folder.sweepInBackground();
    throw withReportOfWork(asRootfsError(task.what, error), report);
  }
}

class Recovery {
  readonly task: Task;
  readonly failures: Failures;
  readonly report = {
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
  readonly #folder: ManagedFolder;
  readonly #templates: Templates;
  /** Slots whose data has not been flushed, as far as is known. */
  readonly #unflushed: string[] = [];

  constructor(folder: ManagedFolder, templates: Templates, signal: AbortSignal | undefined) {
    this.#folder = folder;
    this.#templates = templates;
    this.task = new Task(`recovering ${folder.path}`, signal);
    this.failures = new Failures(this.task);
  }

  /** Whether there is a folder to recover. What keeps it from being opened is one failure, not one of each slot. */
  async open(): Promise<boolean> {
    const { path } = this.#folder;
    const isOpen = await this.failures.attempt(path, async () => {
      this.task.checkAborted();
      if (await isMissing(path)) return false;
      await this.#folder.open();
      return true;
    });
    return isOpen ?? false;
  }

  async lookAtSlots(): Promise<void> {
    const { path } = this.#folder;
    await this.failures.attempt(path, async () => {
      for (const slot of await slotNames(path)) {
        if (this.task.signal?.aborted) break;
        // A slot on a bad block must not stop the recovery of everything else.
        await this.failures.attempt(`${path}/${slot}`, () => this.#look(slot));
      }
    });
  }

  #look(slot: string, round = 1): Promise<void> {
    const { report } = this;
    return this.#folder.use(async ({ handle }) => {
      let state = await inspectSlot(handle, slot);
      if (typeof state.newSizeStamp === 'string') {
        await finishCutOffGrow(handle, slot, this.task.signal);
        report.settledSlots.push(slot);
        state = await inspectSlot(handle, slot);
      }
      if (isUnstamped(state)) report.unstamped.push(slot);
      if (unknownFile(state) !== undefined) report.unknown.push(slot);
      if (!isTorn(state, (sha256) => this.#templates.sizeOf(sha256))) {
        // The process that copied it may have been killed before the flush.
        if (state.unsettled !== undefined) this.#unflushed.push(slot);
        return;
      }
      const request = { slot, torn: state.folder, refuseInUse: true };
      const { status } = await releaseUnlessBusy(`${this.#folder.path}/${slot}`, handle, request);
      // Something in its folder changed: perhaps its flush in the background has just ended.
      if (status === 'absent' && round < ROUNDS) return this.#look(slot, round + 1);
      if (status === 'released') report.tornSlots.push(slot);
      if (status === 'in-use') report.tornInUse.push(slot);
    }, 'no-staging');
  }

  /** Flushes what was copied and not flushed. */
  async flushCopies(): Promise<void> {
    if (this.#unflushed.length === 0) return;
    await this.failures.attempt(this.#folder.path, () =>
      this.#folder.use(({ handle }) => flushCopiedSlots(this.task, handle, this.#unflushed)),
    );
  }

  /** Removes sealed images and ready slots of templates that are gone or were replaced. */
  async collect(sealed: SealedImages, pool: Pool): Promise<void> {
    const { report, failures } = this;
    const { statePath } = this.#folder;
    report.sealedRemoved =
      (await failures.attempt(`${statePath}/${SEALED_FOLDER}`, () =>
        sealed.images.collect(this.#templates, failures),
      )) ?? 0;
    report.pooledRemoved =
      (await failures.attempt(`${statePath}/${POOL_FOLDER}`, () =>
        pool.collect(this.#templates, failures),
      )) ?? 0;
  }

  /** Removes what dead processes left in these folders. */
  async sweep(folders: readonly ManagedFolder[]): Promise<void> {
    for (const each of folders) await this.failures.attempt(each.path, () => this.#sweepOne(each));
  }

  async #sweepOne(folder: ManagedFolder): Promise<void> {
    // Create nothing where nothing existed.
    if (await isMissing(folder.statePath)) return;
    try {
      await folder.sweep(this.report, this.task.signal);
    } catch (error) {
      // A catalog that is read-only or owned by another user is not ours to clean up.
      if (folder === this.#folder || !mayNotWrite(error) || (await isWritable(folder.statePath))) throw error;
      this.report.notSwept.push(folder.path);
    }
  }
}

/** Else a file in its trash may be immutable, for example. */
async function isWritable(path: string): Promise<boolean> {
  return access(path, constants.W_OK).then(
    () => true,
    () => false,
  );
}
