import { native } from '../addon/native.js';
import { failedWith, RootfsError } from '../system/errors.js';

/** Whether another process has an image open, as far as can be told: see `openElsewhere` in `NativeAddon`. */
export async function isOpenElsewhere(path: string, mustKnow: boolean): Promise<boolean | undefined> {
  try {
    return await native().openElsewhere(path, mustKnow);
  } catch (error) {
    // Opening fails with EAGAIN if another process holds a lease, so that process has it open.
    if (failedWith(error, 'EAGAIN')) return true;
    throw error;
  }
}

/** `path` of the error is the image's, or that of the slot whose image it is. */
export function inUseError(image: string, path = image): RootfsError {
  const message = `${image} is open in another process: stop the VM or detach the loop device first`;
  return new RootfsError('SLOT_IN_USE', message, { path });
}
