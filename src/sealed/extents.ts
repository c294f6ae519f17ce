import { type NativeSource, native } from '../addon/native.js';
import { failedWith } from '../system/errors.js';

/** An image with at most this many extents clones at full speed. */
export const FEW_EXTENTS = 4;

/** Undefined without FIEMAP. The addon reports that with a single code: native/system/errno_policy.h. */
export async function extentCount(source: NativeSource): Promise<number | undefined> {
  try {
    return await native().extentCount(source);
  } catch (error) {
    if (failedWith(error, 'ENOTSUP')) return undefined;
    throw error;
  }
}
