// Copies one file to any folder, by reflink where possible. The copy gets its name only when it is complete.

import type { Attempt } from '../addon/attempts.js';
import { attemptsOf } from '../addon/attempts.js';
import { type NativeGuardedFolder, type NativeSource, native } from '../addon/native.js';
import { inSlices, inTurn, type Progress, SLICE_BYTES } from '../system/long-work.js';
import type { Strategy } from '../system/strategy.js';
import type { Task } from '../system/task.js';
import { reflinkInTurn, type Scattered } from './extents.js';
import type { OwnerAndMode } from './owner-and-mode.js';

export interface CopiedFile extends Scattered {
  readonly strategy: Strategy;
  readonly attempts: readonly Attempt[];
}

/** Where a copy is to appear. */
export interface Destination {
  readonly folder: NativeGuardedFolder;
  readonly name: string;
}

/**
 * `beforePublished` runs last, to check that the source has not changed. Rejects with the system's EEXIST if the name
 * is taken.
 */
export async function copyFile(
  task: Task,
  source: NativeSource,
  sizeBytes: number,
  { folder, name }: Destination,
  {
    ownerAndMode,
    durable,
    onProgress,
    beforePublished,
  }: {
    readonly ownerAndMode: OwnerAndMode;
    readonly durable: boolean;
    readonly onProgress?: ((progress: Progress) => void) | undefined;
    readonly beforePublished: () => Promise<void>;
  },
): Promise<CopiedFile> {
  const [{ copy, reflinked, errno }, scattered] = await reflinkInTurn(
    task,
    () => native().newFileCopy(source, folder, name),
    (made) => (made.reflinked ? source : undefined),
  );
  try {
    if (!reflinked) {
      await inSlices(task, async () => {
        const { bytesDone, done } = await native().fileCopyStep(copy, SLICE_BYTES);
        onProgress?.({ bytesDone, bytesTotal: sizeBytes });
        return done || undefined;
      });
    }
    await beforePublished();
    await inTurn(task, () => native().publishFileCopy(copy, ownerAndMode, durable));
    if (reflinked) return { strategy: 'reflink', attempts: [], ...scattered };
    return {
      strategy: 'copy',
      attempts: attemptsOf([{ strategy: 'reflink', errno }]),
    };
  } finally {
    native().dispose(copy);
  }
}
