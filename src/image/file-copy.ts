// A copy of one file in any folder: by reflink where that is possible, and there under its name only when it is complete.

import type { Attempt } from '../addon/attempts.js';
import { attemptsOf } from '../addon/attempts.js';
import { type NativeSource, native } from '../addon/native.js';
import { checkAborted, inTurn, type Progress, SLICE_BYTES } from '../system/long-work.js';
import type { Strategy } from '../system/strategy.js';
import type { OwnerAndMode } from './owner-and-mode.js';

export interface CopiedFile {
  readonly strategy: Strategy;
  readonly attempts: readonly Attempt[];
}

/** `beforePublished` is the last moment to find that the source has changed. Rejects with the system's EEXIST if `dest` is there. */
export async function copyFile(
  what: string,
  source: NativeSource,
  sizeBytes: number,
  dest: string,
  {
    dress,
    durable,
    signal,
    onProgress,
    beforePublished,
  }: {
    readonly dress: OwnerAndMode;
    readonly durable: boolean;
    readonly signal: AbortSignal | undefined;
    readonly onProgress?: ((progress: Progress) => void) | undefined;
    readonly beforePublished: () => Promise<void>;
  },
): Promise<CopiedFile> {
  checkAborted(what, signal);
  const { copy, reflinked, errno } = await native().newFileCopy(source, dest);
  try {
    if (!reflinked) {
      await inTurn(what, signal, async () => {
        for (let done = false; !done; ) {
          checkAborted(what, signal);
          const step = await native().fileCopyStep(copy, SLICE_BYTES);
          onProgress?.({ bytesDone: step.bytesDone, bytesTotal: sizeBytes });
          done = step.done;
        }
      });
    }
    await beforePublished();
    await native().publishFileCopy(copy, dress, durable);
    if (reflinked) return { strategy: 'reflink', attempts: [] };
    return {
      strategy: 'copy',
      attempts: attemptsOf([{ strategy: 'reflink', errno }]),
    };
  } finally {
    native().dispose(copy);
  }
}
