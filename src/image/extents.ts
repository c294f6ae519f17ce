// How many pieces a file lies in on disk. FICLONE costs about 10 µs for each.
import { type NativeSource, native } from '../addon/native.js';
import { failedWith } from '../system/errors.js';

/** An image with at most this many extents clones at full speed. */
export const FEW_EXTENTS = 4;

/** A reflink of an image with more extents takes milliseconds, up to seconds. */
export const SCATTERED_EXTENTS = 256;

/** Undefined without FIEMAP. The addon reports that with a single code: native/system/errno_policy.h. */
export async function extentCount(source: NativeSource): Promise<number | undefined> {
  try {
    return await native().extentCount(source);
  } catch (error) {
    if (failedWith(error, 'ENOTSUP')) return undefined;
    throw error;
  }
}
