import { checkAborted, inTurn, SLICE_BYTES } from './long-work.js';
import { type NativeStagedSlot, native } from './native.js';

/** Copies the data of a staged slot's source in slices, when its turn among the long jobs comes. */
export function copyImage(
  what: string,
  staged: NativeStagedSlot,
  signal: AbortSignal | undefined,
): Promise<void> {
  return inTurn(what, signal, async () => {
    for (let done = false; !done; ) {
      checkAborted(what, signal);
      ({ done } = await native().copyStep(staged, SLICE_BYTES));
    }
  });
}
