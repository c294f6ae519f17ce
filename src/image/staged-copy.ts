import { type NativeStagedSlot, native } from '../addon/native.js';
import { inSlices, SLICE_BYTES } from '../system/long-work.js';
import type { Task } from '../system/task.js';
import { Turns } from '../system/turns.js';

// Each has what it makes open. Descriptors are few.
const copying = new Turns(32);

/** Copies the data of a staged slot's source. Resolves to the digest if the copy is packed. */
export async function copyImage(
  task: Task,
  staged: NativeStagedSlot,
  onStep?: (bytesDone: number) => void,
): Promise<string | undefined> {
  const copy = () =>
    inSlices(task, async () => {
      const step = await native().copyStep(staged, SLICE_BYTES);
      onStep?.(step.bytesDone);
      return step.done ? step : undefined;
    });
  const { sha256 } = await copying.run(task, copy);
  return sha256;
}
