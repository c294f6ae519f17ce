// Makes a slot from an image that is not a template: another slot's, or a snapshot's.

import type { Attempt } from '../addon/attempts.js';
import { attemptsOf } from '../addon/attempts.js';
import type { Identity } from '../addon/identity.js';
import { type Built, type NativeSource, native, RUNG, type SlotPlan } from '../addon/native.js';
import type { ManagedFolder, OpenFolder } from '../folder/managed-folder.js';
import { reflinkInTurn, type Scattered } from '../image/extents.js';
import { copyImage } from '../image/staged-copy.js';
import { RootfsError } from '../system/errors.js';
import { inTurn } from '../system/long-work.js';
import type { Strategy } from '../system/strategy.js';
import type { Task } from '../system/task.js';
import { sourceChangedError } from './slot-image.js';
import type { CopyOptions } from './slot-options.js';
import { imagePath, rawIdFile, sidecarsOf } from './stamps.js';
import { unsettledFile } from './unsettled.js';
import { rawIdToStore, type VmId } from './vm-id.js';

/** A slot made from an image that is not a template. */
export interface DerivedRootfs extends Scattered {
  /** The sanitised id, which is the name of the slot's folder. */
  readonly vmId: string;
  /** The stack that the image descends from, if known. */
  readonly stack: string | undefined;
  /** The path of the image for the VM. */
  readonly path: string;
  /** The digest of the template that the image descends from, as in the stamp. It is not the image's own digest. */
  readonly sourceSha256: string;
  readonly sizeBytes: number;
  readonly strategy: Strategy;
  /** Strategies that failed before, in order. */
  readonly attempts: readonly Attempt[];
}

/** What a slot records about the template that its image descends from. */
export interface Descent {
  readonly sourceSha256: string;
  readonly sizeStamp: number | undefined;
  /** The stack. */
  readonly stack: string | undefined;
  /** The stack, if the slot must record it in a file. */
  readonly storedStack: string | undefined;
}

export interface SlotSource {
  readonly path: string;
  readonly source: NativeSource | undefined;
  readonly identity: Identity;
  /** Without a source: files beside it that must be as they were. */
  readonly siblings?: SlotPlan['siblings'];
}

/** Without a source, opens the file at `from.path` itself. Rejects with `SLOT_EXISTS`, `SOURCE_CHANGED`. */
export async function newSlot(
  task: Task,
  folder: ManagedFolder,
  { handle }: OpenFolder,
  from: SlotSource,
  vm: VmId,
  descent: Descent,
  { owner, mode, durable }: CopyOptions,
): Promise<DerivedRootfs> {
  const { what } = task;
  task.checkAborted();
  const { sourceSha256: sha256, sizeStamp, storedStack } = descent;
  const rawId = rawIdToStore(vm);
  const sidecars = sidecarsOf({ sha256, stack: storedStack, sizeStamp });
  const plan = native().newPlan({
    sidecars,
    expected: from.identity,
    templatePath: from.path,
    templateExpected: from.identity,
    siblings: from.siblings ?? [],
    rungs: RUNG.reflink | RUNG.copy,
    owner,
    mode,
    durable,
  });
  const { sizeBytes } = from.identity;
  const exists = () => slotExistsError(what, folder, vm);

  const { source } = from;
  const path = imagePath(folder, vm);
  const [outcome, scattered] = await reflinkInTurn(
    task,
    () =>
      source === undefined
        ? native().cloneFile(handle, plan, vm.safe, rawId)
        : native().cloneSlot(handle, source, plan, vm.safe, rawId, undefined),
    (made) => (made === 'reflinked' ? path : undefined),
  ).finally(() => native().dispose(plan));
  const made = (strategy: Strategy, attempts: Built['attempts']): DerivedRootfs => ({
    vmId: vm.safe,
    stack: descent.stack,
    path,
    sourceSha256: sha256,
    sizeBytes,
    strategy,
    attempts: attemptsOf(attempts),
    ...scattered,
  });
  if (outcome === 'reflinked' || outcome === 'pooled') return made('reflink', []);
  if (outcome.status === 'exists') throw exists();
  if (outcome.status === 'created') return made(outcome.strategy, outcome.attempts);
  if (!('staged' in outcome)) throw sourceChangedError(what);
  try {
    await copyImage(task, outcome.staged);
    const mark = durable ? [] : await unsettledFile(outcome.imagePath);
    const all = [...sidecars, ...rawIdFile(rawId), ...mark];
    const { staged } = outcome;
    const published = await inTurn(task, () => native().publishSlot(staged, 'top', vm.safe, sizeBytes, all));
    if (published === 'exists') throw exists();
    if (published === 'source-changed') throw sourceChangedError(what);
    if (!durable) folder.settleInBackground(vm.safe);
    return made(outcome.strategy, outcome.attempts);
  } finally {
    await native().discardSlot(outcome.staged);
  }
}

export function slotExistsError(what: string, folder: ManagedFolder, vm: VmId): RootfsError {
  return new RootfsError('SLOT_EXISTS', `${what}: the slot exists already; release it first`, {
    path: `${folder.path}/${vm.safe}`,
  });
}
