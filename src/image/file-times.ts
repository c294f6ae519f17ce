// Whether a file's time of last change tells its present state from every later one.

import type { Identity } from '../addon/identity.js';
import { isKernelSince } from '../system/kernel-version.js';

const SECOND_MS = 1000;
const SECOND_NS = 1_000_000_000n;

// FAT's times are even seconds.
const COARSEST_MS = 2 * SECOND_MS;

// Time stamps advance with the kernel's tick, 10 ms at the slowest.
const TICK_MS = 20;

// None of these has times coarser than a second. From Linux 6.13 on, they give a change that follows a look at the time
// a stamp of its own.
const FINE = ['xfs:', 'btrfs:', 'ext:'];

/**
 * Whether the file system keeps whole seconds alone, as ext3, ext4 with inodes of 128 bytes, and images that were built
 * with fixed times do. Other files have such a time once in a billion.
 */
export function hasWholeSeconds({ ctimeNs }: Pick<Identity, 'ctimeNs'>): boolean {
  return ctimeNs % SECOND_NS === 0n;
}

/** Milliseconds until a new write is certain to change the file's ctime. */
export function msUntilDistinctTime(
  identity: Pick<Identity, 'ctimeNs'>,
  filesystem: string,
  now = Date.now(),
  kernel?: string,
): number {
  const ageMs = now - Number(identity.ctimeNs / 1_000_000n);
  const unitMs = unitOf(identity, filesystem);
  const distinctAfterMs = unitMs > 0 || !hasOwnStamps(filesystem, kernel) ? unitMs + TICK_MS : 0;
  // A time in the future is from a clock that was set back since: no change now gets the same time.
  return ageMs > -TICK_MS ? Math.max(0, distinctAfterMs - ageMs) : 0;
}

/** What the file system may count times in, as the time tells; 0 if that is finer than ticks. */
function unitOf(identity: Pick<Identity, 'ctimeNs'>, filesystem: string): number {
  if (!hasWholeSeconds(identity)) return 0;
  return isFine(filesystem) || (identity.ctimeNs / SECOND_NS) % 2n !== 0n ? SECOND_MS : COARSEST_MS;
}

function isFine(filesystem: string): boolean {
  return FINE.some((kind) => filesystem.startsWith(kind));
}

function hasOwnStamps(filesystem: string, kernel: string | undefined): boolean {
  return isKernelSince(6, 13, kernel) && isFine(filesystem);
}
