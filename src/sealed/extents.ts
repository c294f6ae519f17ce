import { type NativeSource, native } from '../addon/native.js';
import { failedWith } from '../system/errors.js';

/** An image with no more extents than this is cloned as quickly as any. */
export const FEW_EXTENTS = 4;

/** Undefined where there is no FIEMAP. The addon reports that as one code: native/system/errno_policy.h. */
export async function extentCount(source: NativeSource): Promise<number | undefined> {
  try {
    return await native().extentCount(source);
  } catch (error) {
    if (failedWith(error, 'ENOTSUP')) return undefined;
    throw error;
  }
}
