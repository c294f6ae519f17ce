import { type NativeStagedSlot, native } from '../addon/native.js';
import { checkAborted, inTurn, SLICE_BYTES } from '../system/long-work.js';

/**
 * Copies the data of a staged slot's source in slices, when its turn among the long jobs comes. Resolves to the digest of a packed copy.
 */
export function copyImage(
  what: string,
  staged: NativeStagedSlot,
  signal: AbortSignal | undefined,
  onStep?: (bytesDone: number) => void,
): Promise<string | undefined> {
  return inTurn(what, signal, async () => {
    for (;;) {
      checkAborted(what, signal);
      const { bytesDone, done, sha256 } = await native().copyStep(staged, SLICE_BYTES);
      onStep?.(bytesDone);
      if (done) return sha256;
    }
  });
}
