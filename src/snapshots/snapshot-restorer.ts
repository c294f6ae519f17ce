// Gives VMs their slots of a snapshot: one by one, or ready ones that are kept for them.

import type { LocatedFile } from '../catalog/digest-record.js';
import type { StacksByDigest } from '../catalog/stacks-by-digest.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { type DerivedRootfs, newSlot, type ReadySlot, type SlotContents } from '../slot/new-slot.js';
import { sourceChangedError } from '../slot/slot-image.js';
import type { CopyOptions } from '../slot/slot-options.js';
import type { VmId } from '../slot/vm-id.js';
import { asRootfsError, hasCode } from '../system/errors.js';
import type { Progress } from '../system/long-work.js';
import { Task } from '../system/task.js';
import { unlessMissing } from './open-snapshot.js';
import { type ReadyRequest, type ReadySnapshots, readyKey } from './ready-snapshots.js';
import type { Snapshots } from './snapshots.js';
import type { VerifiedSnapshot, VerifiedSnapshots } from './verified-snapshots.js';

export interface RestoredRootfs extends DerivedRootfs {
  /** The snapshot's other files, for the VM to load by path. They must never be written to. */
  readonly files: readonly string[];
  /** Whether it was a ready slot: see {@link RootfsRegistry.prewarmSnapshot}. */
  readonly pooled: boolean;
}

// Each round is lost to a process that removes the snapshot and takes it again at the same moment.
const ROUNDS = 4;

interface RestorerParts {
  readonly snapshots: Snapshots;
  readonly clones: ManagedFolder;
  readonly stacks: StacksByDigest;
  readonly verified: VerifiedSnapshots;
  readonly ready: ReadySnapshots;
}

export class SnapshotRestorer {
  readonly #parts: RestorerParts;

  constructor(parts: RestorerParts) {
    this.#parts = parts;
  }

  /** The slot is made from the same open files that were verified. */
  async restore(
    name: string,
    vm: VmId,
    options: CopyOptions,
    onProgress: ((progress: Progress) => void) | undefined,
  ): Promise<RestoredRootfs> {
    const path = this.#parts.snapshots.pathOf(name);
    const task = new Task(
      `restoring snapshot ${path} to ${this.#parts.clones.path}/${vm.safe}`,
      options.signal,
    );
    try {
      let verified = this.#parts.verified.remembered(path);
      if (verified === undefined) await this.#parts.snapshots.refuseOtherSpelling(name);
      for (let round = 0; round < ROUNDS; round++) {
        verified ??= await this.#parts.verified.verifyOnce(path, { task, onProgress });
        const restored = await this.#cloneDisk(task, verified, vm, options).catch(unlessChanged);
        if (restored !== undefined) return restored;
        // Another process removed the snapshot, or took it again: look at what is there now.
        this.#parts.verified.forget(path);
        verified = undefined;
      }
      throw sourceChangedError(task.what);
    } catch (error) {
      throw asRootfsError(task.what, error);
    }
  }

  async #cloneDisk(
    task: Task,
    verified: VerifiedSnapshot,
    vm: VmId,
    options: CopyOptions,
  ): Promise<RestoredRootfs> {
    const made = await this.#parts.clones.use(async (open) => {
      const contents = await this.#contentsOf(verified, options);
      const make = (ready?: ReadySlot) =>
        newSlot(task, open, { ...contents, folder: this.#parts.clones, vm, ready });
      // Ready slots are not flushed.
      return options.durable ? make() : this.#parts.ready.lend(readyKey(verified, options), make);
    });
    return { ...made.slot, pooled: made.pooled, files: verified.files.slice(1).map((file) => file.path) };
  }

  /** What each slot of the snapshot holds. In an open clones folder. */
  async #contentsOf(
    { record, files }: VerifiedSnapshot,
    options: SlotContents['options'],
  ): Promise<SlotContents> {
    const { stack, sourceSha256, sizeStamp } = record;
    const [disk, ...siblings] = files as [LocatedFile, ...LocatedFile[]];
    if (stack !== undefined) await this.#parts.stacks.record(sourceSha256, stack);
    const storedStack = stack && this.#parts.stacks.stackToStore(sourceSha256, stack);
    return {
      from: { path: disk.path, source: undefined, identity: disk.identity, siblings },
      descent: { sourceSha256, sizeStamp, stack, storedStack },
      options,
    };
  }

  /** Verifies a snapshot and keeps ready slots of it, or none if no number of them is given. */
  async prewarm(
    name: string,
    { count, ...request }: Omit<ReadyRequest, 'count'> & { readonly count: number | undefined },
    isWanted: () => boolean = () => true,
  ): Promise<void> {
    const path = this.#parts.snapshots.pathOf(name);
    const task = new Task(`making ready slots of snapshot ${path}`, request.signal);
    try {
      await this.#parts.snapshots.refuseOtherSpelling(name);
      for (let round = 0; round < ROUNDS; round++) {
        const verified = await this.#parts.verified.verifyOnce(path, { task });
        if (count === undefined || !isWanted()) return;
        const contents = await this.#parts.clones.use(() =>
          this.#contentsOf(verified, { ...request, durable: false }),
        );
        const renew = (isStillWanted: () => boolean) =>
          this.prewarm(name, { ...request, count, signal: undefined }, isStillWanted).catch(unlessMissing);
        try {
          return await this.#parts.ready.keep(verified, { ...request, count }, contents, renew);
        } catch (error) {
          if (!hasCode(error, 'TEMPLATE_CHANGED')) unlessChanged(error);
        }
        this.#parts.verified.forget(path);
      }
      throw sourceChangedError(task.what);
    } catch (error) {
      throw asRootfsError(task.what, error);
    }
  }
}

/** Remembered facts about a snapshot may be about files that it had before. */
function unlessChanged(error: unknown): undefined {
  if (!hasCode(error, 'SOURCE_CHANGED')) throw error;
}
