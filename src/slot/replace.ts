// Putting another image in the place of an existing slot's: to grow it, or to make it independent of its template.

import { type NativeAddon, type NativeFolder, type NativeLockedSlot, native, RUNG } from '../addon/native.js';
import { withLock } from '../folder/folder-lock.js';
import { type GrowPrograms, growImage, shrinkRefusedError } from '../image/grow.js';
import { setOwnerAndMode } from '../image/owner-and-mode.js';
import { copyImage } from '../image/staged-copy.js';
import type { Owner } from '../system/arguments.js';
import { failedWith, RootfsError } from '../system/errors.js';
import type { Strategy } from '../system/strategy.js';
import { Task } from '../system/task.js';

export interface Replacement {
  readonly slot: string;
  readonly imagePath: string;
  /** The image is the template under another name: who has it open is no matter, the template stays as it is. */
  readonly shared: boolean;
  readonly targetBytes: number;
  readonly sizeStamp: string | undefined;
  readonly owner: Owner | undefined;
  readonly mode: number | undefined;
  readonly durable: boolean;
  readonly programs: GrowPrograms;
}

/** `again`: the slot was released, or its image changed, in the same instant. */
export async function replaceImage(
  task: Task,
  handle: NativeFolder,
  replacement: Replacement,
): Promise<Strategy | 'again'> {
  const { slot, shared, targetBytes, sizeStamp } = replacement;
  const replaced = await withLock(task, handle, slot, async (locked) => {
    await native().finishGrow(locked);
    const opened = await openImage(locked);
    if (opened === 'gone') return 'again';
    const { source, info, inUse } = opened;
    try {
      if (inUse && !shared) throw slotInUseError(replacement.imagePath);
      if (info.identity.sizeBytes > targetBytes)
        throw shrinkRefusedError(slot, info.identity.sizeBytes, targetBytes);
      const outcome = await native().stageImage(handle, source, {
        sidecars: [],
        expected: info.identity,
        rungs: RUNG.reflink | RUNG.copy,
        durable: replacement.durable,
      });
      const { staged } = outcome;
      try {
        if (outcome.status === 'copy-needed') await copyImage(task, staged);
        await growImage(outcome.imagePath, targetBytes, replacement.programs, task.signal);
        await setOwnerAndMode(outcome.imagePath, {
          // What the image had stays, unless it had it from the template.
          owner: replacement.owner ?? (shared ? undefined : { uid: info.uid, gid: info.gid }),
          mode: replacement.mode ?? (shared ? undefined : info.mode),
        });
        task.checkAborted();
        const replaced = await native().replaceImage(
          locked,
          staged,
          source,
          info.identity,
          sizeStamp,
          !shared,
        );
        if (replaced === 'in-use') throw slotInUseError(replacement.imagePath);
        return replaced === 'done' ? outcome.strategy : 'again';
      } finally {
        await native().discardSlot(staged);
      }
    } finally {
      native().dispose(source);
    }
  });
  return replaced === 'absent' ? 'again' : replaced;
}

/** The slot may have been released, and emptied, since it was locked: a lock keeps no one from releasing. */
async function openImage(
  locked: NativeLockedSlot,
): Promise<Awaited<ReturnType<NativeAddon['openSlotImage']>> | 'gone'> {
  try {
    return await native().openSlotImage(locked);
  } catch (error) {
    if (failedWith(error, 'ENOENT')) return 'gone';
    throw error;
  }
}

/** Completes or undoes a grow that was cut off while it was being published. */
export async function finishCutOffGrow(
  handle: NativeFolder,
  slot: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  await withLock(new Task(`finishing the grow of ${slot}`, signal), handle, slot, async (locked) => {
    await native().finishGrow(locked);
  });
}

function slotInUseError(path: string): RootfsError {
  return new RootfsError(
    'SLOT_IN_USE',
    `${path} is open in another process: stop the VM before its disk is changed`,
    { path },
  );
}
