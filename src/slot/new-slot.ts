// Makes a slot from an image that is not a template: another slot's, or a snapshot's.

import { type Attempt, attemptsOf } from '../addon/attempts.js';
import type { Identity } from '../addon/identity.js';
import {
  type Built,
  type CloneOutcome,
  inspectSlot,
  type NativeFolder,
  type NativePlan,
  type NativeSource,
  native,
  RUNG,
  type SlotPlan,
  type Staged,
} from '../addon/native.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import type { OpenFolder } from '../folder/open-folder.js';
import { reflinkInTurn, type Scattered } from '../image/extents.js';
import { copyImage } from '../image/staged-copy.js';
import { asRootfsError, isGone, isSystemError, RootfsError } from '../system/errors.js';
import { inTurn } from '../system/long-work.js';
import type { Strategy } from '../system/strategy.js';
import type { Task } from '../system/task.js';
import { Turns } from '../system/turns.js';
import { sourceChangedError } from './slot-image.js';
import type { CopyOptions } from './slot-options.js';
import { requireOwnId, requireSlot } from './slot-state.js';
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
interface Descent {
  readonly sourceSha256: string;
  readonly sizeStamp: number | undefined;
  readonly stack: string | undefined;
  /** The same, if the slot must record it in a file. */
  readonly storedStack: string | undefined;
}

interface SlotSource {
  readonly path: string;
  readonly source: NativeSource | undefined;
  readonly identity: Identity;
  /** Without a source: files beside it that must be as they were. */
  readonly siblings?: SlotPlan['siblings'];
}

/** The parts of a slot that do not depend on its VM. */
export interface SlotContents {
  readonly from: SlotSource;
  readonly descent: Descent;
  readonly options: Omit<CopyOptions, 'signal'>;
}

export interface ReadySlot {
  /** In the pool. */
  readonly name: string;
  /** How it was made. */
  readonly strategy: Strategy;
}

interface NewSlot extends SlotContents {
  readonly folder: ManagedFolder;
  readonly vm: VmId;
  /** Without a source: a slot in the pool that holds the same. It is taken if it is still there. */
  readonly ready?: ReadySlot | undefined;
}

export interface MadeSlot {
  readonly slot: DerivedRootfs;
  /** Whether it is the ready one. */
  readonly pooled: boolean;
}

// Each has its source open until it is copied. Descriptors are few.
const making = new Turns(32);

/** Without a source, opens the file at `from.path` itself. Rejects with `SLOT_EXISTS`, `SOURCE_CHANGED`. */
export function newSlot(task: Task, open: OpenFolder, slot: NewSlot): Promise<MadeSlot> {
  return slot.ready === undefined
    ? making.run(task, () => makeSlot(task, open, slot))
    : makeSlot(task, open, slot);
}

async function makeSlot(task: Task, { handle }: OpenFolder, slot: NewSlot): Promise<MadeSlot> {
  task.checkAborted();
  const { folder, vm } = slot;
  const path = imagePath(folder, vm);
  const plan = native().newPlan(planOf(slot));
  const [outcome, scattered] = await buildInTurn(task, path, slot, () => buildSlot(handle, plan, slot))
    .catch(notFlushed(task))
    .finally(() => native().dispose(plan));
  const made = (strategy: Strategy, attempts: Built['attempts']): MadeSlot => ({
    slot: {
      vmId: vm.safe,
      stack: slot.descent.stack,
      path,
      sourceSha256: slot.descent.sourceSha256,
      sizeBytes: slot.from.identity.sizeBytes,
      strategy,
      attempts: attemptsOf(attempts),
      ...scattered,
    },
    pooled: outcome === 'pooled',
  });
  if (outcome === 'reflinked') return made('reflink', []);
  if (outcome === 'pooled') return made(slot.ready?.strategy ?? 'reflink', []);
  if (outcome.status === 'exists') throw await slotExistsError(task.what, folder, vm);
  if (outcome.status === 'created') return made(outcome.strategy, outcome.attempts);
  if (!('staged' in outcome)) throw sourceChangedError(task.what);
  await copyAndPublish(task, outcome, slot);
  return made(outcome.strategy, outcome.attempts);
}

/** A ready slot takes no reflink, and so no turn. */
function buildInTurn(
  task: Task,
  path: string,
  { ready }: NewSlot,
  build: () => Promise<CloneOutcome>,
): Promise<[CloneOutcome, Scattered]> {
  if (ready !== undefined) return build().then((outcome) => [outcome, {}]);
  return reflinkInTurn(task, build, (made) => (made === 'reflinked' ? path : undefined));
}

/**
 * Makes a ready slot in the pool. `nameOf` gives its name, which tells how it was made. Rejects with `SOURCE_CHANGED`.
 */
export async function newReadySlot(
  task: Task,
  { handle }: OpenFolder,
  slot: SlotContents,
  nameOf: (strategy: Strategy) => string,
): Promise<string> {
  const { from, descent } = slot;
  const { source } = await native()
    .openSource(from.path)
    .catch((error: unknown) => {
      // Removed, or about to be there again.
      throw isGone(error) ? sourceChangedError(task.what) : error;
    });
  try {
    const { status, staged, strategy } = await inTurn(task, () =>
      native().stageImage(handle, source, planOf(slot)),
    );
    try {
      if (status === 'copy-needed') await copyImage(task, staged);
      const name = nameOf(strategy);
      const published = await inTurn(task, () =>
        native().publishSlot(staged, 'pool', name, from.identity.sizeBytes, descentFiles(descent)),
      );
      if (published !== 'created') throw sourceChangedError(task.what);
      return name;
    } finally {
      await native().discardSlot(staged);
    }
  } finally {
    native().dispose(source);
  }
}

function planOf({ from, descent, options: { owner, mode, durable } }: SlotContents): SlotPlan {
  return {
    sidecars: descentFiles(descent),
    expected: from.identity,
    templatePath: from.path,
    templateExpected: from.identity,
    siblings: from.siblings ?? [],
    rungs: RUNG.reflink | RUNG.copy,
    owner,
    mode,
    durable,
  };
}

function descentFiles({ sourceSha256, storedStack, sizeStamp }: Descent): string[] {
  return sidecarsOf({ sha256: sourceSha256, stack: storedStack, sizeStamp });
}

function buildSlot(
  handle: NativeFolder,
  plan: NativePlan,
  { from, vm, ready }: NewSlot,
): Promise<CloneOutcome> {
  const rawId = rawIdToStore(vm);
  return from.source === undefined
    ? native().cloneFile(handle, plan, vm.safe, rawId, ready?.name)
    : native().cloneSlot(handle, from.source, plan, vm.safe, rawId, undefined);
}

/** Where there are no reflinks. */
async function copyAndPublish(task: Task, { staged }: Staged, slot: NewSlot): Promise<void> {
  const { folder, from, vm, descent, options } = slot;
  try {
    await copyImage(task, staged);
    const mark = options.durable ? [] : unsettledFile();
    const sidecars = [...descentFiles(descent), ...rawIdFile(rawIdToStore(vm)), ...mark];
    const published = await inTurn(task, () =>
      native().publishSlot(staged, 'top', vm.safe, from.identity.sizeBytes, sidecars),
    ).catch(notFlushed(task));
    if (published === 'exists') throw await slotExistsError(task.what, folder, vm);
    if (published === 'source-changed') throw sourceChangedError(task.what);
    if (!options.durable) folder.flushInBackground(vm.safe);
  } finally {
    await native().discardSlot(staged);
  }
}

/** For a name that is taken. Throws `SLOT_INVALID` or `VM_ID_COLLISION` if this id could not release what has it. */
export async function slotExistsError(what: string, folder: ManagedFolder, vm: VmId): Promise<RootfsError> {
  const path = `${folder.path}/${vm.safe}`;
  const state = await folder.use(({ handle }) => inspectSlot(handle, vm.safe), 'no-staging');
  // Released meanwhile, if it is absent.
  if (state.kind !== 'absent') {
    requireSlot(path, state);
    requireOwnId(path, vm, state);
  }
  return new RootfsError('SLOT_EXISTS', `${what}: the slot exists already; release it first`, { path });
}

/** If only the flush failed, the slot exists, and the same call would be refused: only a clone reuses its slot. */
export function notFlushed({ what }: Task): (error: unknown) => never {
  return (error) => {
    if (!isSystemError(error) || error.changeMade !== true) throw error;
    throw asRootfsError(
      what,
      error,
      'the same call rejects with SLOT_EXISTS: release the slot and call again',
    );
  };
}
