import { type NativeStagedSlot, native } from '../addon/native.js';
import { inTurn, SLICE_BYTES } from '../system/long-work.js';
import type { Task } from '../system/task.js';

/**
 * Copies the data of a staged slot's source in slices, when its turn among the long jobs comes. Resolves to the digest of a packed copy.
 */
export function copyImage(
  task: Task,
  staged: NativeStagedSlot,
  onStep?: (bytesDone: number) => void,
): Promise<string | undefined> {
  return inTurn(task, async () => {
    for (;;) {
      task.checkAborted();
      const { bytesDone, done, sha256 } = await native().copyStep(staged, SLICE_BYTES);
      onStep?.(bytesDone);
      if (done) return sha256;
    }
  });
}
