import { type NativeSource, native } from '../addon/native.js';
import { failedWith } from '../system/errors.js';

/** An image with no more extents than this is cloned as quickly as any. */
export const FEW_EXTENTS = 4;

/** Undefined where it cannot be told: it is only an optimisation. */
export async function extentCount(source: NativeSource): Promise<number | undefined> {
  try {
    return await native().extentCount(source);
  } catch (error) {
    if (['ENOTSUP', 'ENOTTY', 'EPERM', 'ENOSYS'].some((code) => failedWith(error, code))) return undefined;
    throw error;
  }
}
