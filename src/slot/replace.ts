// Replacing the image of an existing slot: to grow it, or to give it a file of its own.

import { sameFile } from '../addon/identity.js';
import {
  inspectSlot,
  type NativeAddon,
  type NativeFolder,
  type NativeLockedSlot,
  native,
  RUNG,
} from '../addon/native.js';
import { withLock } from '../folder/folder-lock.js';
import { type GrowPrograms, growImage, shrinkRefusedError } from '../image/grow.js';
import { inUseError } from '../image/open-elsewhere.js';
import { setOwnerAndMode } from '../image/owner-and-mode.js';
import { copyImage } from '../image/staged-copy.js';
import type { Owner } from '../system/arguments.js';
import { failedWith } from '../system/errors.js';
import { inTurn } from '../system/long-work.js';
import type { Strategy } from '../system/strategy.js';
import { Task } from '../system/task.js';
import { Turns } from '../system/turns.js';
import { untilUnused } from '../system/until-unused.js';
import type { Sharer } from './shared-image.js';
import { isSameSlot, type SlotWithImage } from './slot-state.js';
import { openUnleased } from './slot-use.js';

interface Replacement {
  readonly slot: string;
  readonly imagePath: string;
  /** The slot as it was when the caller decided to replace its image. */
  readonly decidedOn: SlotWithImage;
  readonly sharer: Sharer;
  readonly targetBytes: number;
  readonly sizeStamp: string | undefined;
  readonly owner: Owner | undefined;
  readonly mode: number | undefined;
  readonly durable: boolean;
  readonly programs: GrowPrograms;
}

// Each has the slot's image open, and the new one, while it waits for its turn to copy and to grow.
const replacing = new Turns(32);

/** `again`: the slot was released or changed after the caller's decision, so the caller has to decide again. */
export function replaceImage(
  task: Task,
  handle: NativeFolder,
  replacement: Replacement,
): Promise<Strategy | 'again'> {
  return replacing.run(task, () => lockAndReplace(task, handle, replacement));
}

async function lockAndReplace(
  task: Task,
  handle: NativeFolder,
  replacement: Replacement,
): Promise<Strategy | 'again'> {
  const { slot, decidedOn } = replacement;
  const replaced = await withLock(task, handle, slot, async (locked) => {
    // The template stays as it is, so nobody who has it open loses anything.
    const { sharer, imagePath } = replacement;
    const opened = await (sharer === 'template'
      ? openLockedImage(locked, imagePath, false)
      : openUnused(locked, imagePath));
    if (opened === 'gone') return 'again';
    try {
      // Waiting for the lock can take as long as another caller's grow, or a release and a clone for another VM.
      if (!isSameSlot(decidedOn, await inspectSlot(handle, slot))) return 'again';
      if (!sameFile(decidedOn.image.identity, opened.info.identity)) return 'again';
      return await replaceLocked(task, handle, locked, opened, replacement);
    } finally {
      native().dispose(opened.source);
    }
  });
  return replaced === 'absent' ? 'again' : replaced;
}

async function replaceLocked(
  task: Task,
  handle: NativeFolder,
  locked: NativeLockedSlot,
  { source, info, inUse }: OpenedImage,
  replacement: Replacement,
): Promise<Strategy | 'again'> {
  const { imagePath, sharer, targetBytes } = replacement;
  const { sizeBytes } = info.identity;
  const refuseInUse = sharer !== 'template';
  if (inUse && refuseInUse) throw inUseError(imagePath);
  if (sizeBytes > targetBytes) throw shrinkRefusedError(imagePath, sizeBytes, targetBytes);
  const outcome = await inTurn(task, () =>
    native().stageImage(handle, source, {
      sidecars: [],
      expected: info.identity,
      rungs: RUNG.reflink | RUNG.copy,
      durable: replacement.durable,
    }),
  );
  const { staged } = outcome;
  try {
    if (outcome.status === 'copy-needed') await copyImage(task, staged);
    await growImage(outcome.imagePath, targetBytes, replacement.programs, task.signal, imagePath);
    const keep = sharer === 'nobody';
    await setOwnerAndMode(outcome.imagePath, {
      owner: replacement.owner ?? (keep ? { uid: info.uid, gid: info.gid } : undefined),
      mode: replacement.mode ?? (keep ? info.mode : undefined),
    });
    task.checkAborted();
    const { sizeStamp } = replacement;
    const swap = { image: source, expected: info.identity, sizeStamp, refuseInUse };
    const done = await inTurn(task, () => native().replaceImage(locked, staged, swap));
    // Another process opened it meanwhile; the caller looks again.
    return done === 'done' ? outcome.strategy : 'again';
  } finally {
    await native().discardSlot(staged);
  }
}

type OpenedImage = Awaited<ReturnType<NativeAddon['openSlotImage']>>;

/** `gone`: the slot was released, which does not wait for the lock. */
async function openLockedImage(
  locked: NativeLockedSlot,
  imagePath: string,
  mustKnow: boolean,
): Promise<OpenedImage | 'gone'> {
  try {
    return await openUnleased(imagePath, () => native().openSlotImage(locked, mustKnow));
  } catch (error) {
    if (failedWith(error, 'ENOENT')) return 'gone';
    throw error;
  }
}

/** Still `inUse` if it stays so. */
function openUnused(locked: NativeLockedSlot, imagePath: string): Promise<OpenedImage | 'gone'> {
  let before: OpenedImage | 'gone' = 'gone';
  return untilUnused(
    async () => {
      if (before !== 'gone') native().dispose(before.source);
      before = await openLockedImage(locked, imagePath, true);
      return before;
    },
    (opened) => opened !== 'gone' && opened.inUse,
  );
}

/** Completes or undoes a grow whose process was killed while it published. */
export async function finishCutOffGrow(
  handle: NativeFolder,
  slot: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  await withLock(new Task(`finishing the grow of ${slot}`, signal), handle, slot, async (locked) => {
    await native().finishGrow(locked);
  });
}
