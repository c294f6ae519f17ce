import { native } from '../addon/native.js';
import { failedWith } from '../system/errors.js';

/** Whether another process has an image open, as far as can be told: see `openElsewhere` in `NativeAddon`. */
export async function isOpenElsewhere(path: string, mustTell: boolean): Promise<boolean | undefined> {
  try {
    return await native().openElsewhere(path, mustTell);
  } catch (error) {
    // Opening fails with EAGAIN if another process holds a lease, so that process has it open.
    if (failedWith(error, 'EAGAIN')) return true;
    throw error;
  }
}
