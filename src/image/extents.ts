// How many pieces a file lies in on disk. FICLONE costs by the piece: docs/design.md, "Sealed images", has the number.
import { type FileBlocks, type NativeSource, native } from '../addon/native.js';
import { failedWith, isSystemError } from '../system/errors.js';
import { inTurn } from '../system/long-work.js';
import type { Task } from '../system/task.js';

/** An image with at most this many extents clones at full speed. */
export const FEW_EXTENTS = 4;

/** A reflink of an image with more extents takes several milliseconds, or seconds. */
export const QUICK_EXTENTS = 256;

/** An image with more extents is called scattered: a reflink of it takes 10 ms or more. */
export const SCATTERED_EXTENTS = 1000;

/** Undefined without FIEMAP. The addon reports that with a single code: native/system/errno_policy.h. */
export async function extentCount(source: NativeSource): Promise<number | undefined> {
  try {
    return await native().extentCount(source);
  } catch (error) {
    if (failedWith(error, 'ENOTSUP')) return undefined;
    throw error;
  }
}

/** What one file holds on disk. Undefined if it cannot be opened. */
export async function measureFile(path: string): Promise<FileBlocks | undefined> {
  const usage = native().newDiskUsage();
  try {
    const [blocks] = await native().measureFiles(usage, [path]);
    return blocks === undefined || isSystemError(blocks) ? undefined : blocks;
  } finally {
    native().dispose(usage);
  }
}

/** The number of extents of the image at a path. */
export async function extentCountAt(path: string): Promise<number | undefined> {
  const { source } = await native().openSource(path);
  return await extentCount(source).finally(() => native().dispose(source));
}

/** What made a reflink slow. */
export interface Scattered {
  /**
   * The number of extents that the image lies in, if they made the reflink slow (5 ms or more).
   * See "Scattered disks" in the guide.
   */
  readonly extents?: number;
}

const SLOW_MS = 5;

/** Runs a reflink in its turn. If it was slow, counts the extents of the image that is named by its result. */
export async function reflinkInTurn<T>(
  task: Task,
  reflink: () => Promise<T>,
  imageOf: (made: T) => string | NativeSource | undefined,
): Promise<[made: T, Scattered]> {
  return inTurn(task, async () => {
    const started = performance.now();
    const made = await reflink();
    const image = imageOf(made);
    if (image === undefined || performance.now() - started < SLOW_MS) return [made, {}];
    // An image that was removed meanwhile fails no reflink that was made.
    const extents = await (typeof image === 'string'
      ? extentCountAt(image).catch(() => undefined)
      : extentCount(image));
    return [made, extents === undefined || extents <= QUICK_EXTENTS ? {} : { extents }];
  });
}
