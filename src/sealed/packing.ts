// Decides when packing an image pays off: when its extents have cost clones as much time as packing will take.

import { FEW_EXTENTS } from '../image/extents.js';

// The cost of one extent to FICLONE, by filesystem type.
const EXTENT_MS: readonly (readonly [kind: string, ms: number])[] = [
  ['xfs:', 0.012],
  ['btrfs:', 0.008],
];
const OTHER_EXTENT_MS = 0.01;

// Used until this process has measured a copy.
let bytesPerMs = 300 * 1024;

/** Copy times that this process has measured. */
export function sawCopy(bytes: number, durationMs: number): void {
  if (bytes > 0 && durationMs > 0) bytesPerMs = (bytesPerMs + bytes / durationMs) / 2;
}

/** Estimates how long packing will take. */
function packingMs(dataBytes: number): number {
  return dataBytes / bytesPerMs;
}

/** What the extents beyond the first few cost each clone. */
function extentsMs(extents: number | undefined, filesystem: string): number {
  const ms = EXTENT_MS.find(([kind]) => filesystem.startsWith(kind))?.[1] ?? OTHER_EXTENT_MS;
  return Math.max(0, (extents ?? 0) - FEW_EXTENTS) * ms;
}

/** The number of clones after which packing has paid off. Infinity if there is nothing to gain. */
export function clonesThatPay(extents: number | undefined, dataBytes: number, filesystem: string): number {
  const costMs = extentsMs(extents, filesystem);
  return costMs === 0 ? Number.POSITIVE_INFINITY : Math.max(1, Math.ceil(packingMs(dataBytes) / costMs));
}

/** Whether a copy of `dataBytes` leaves a fifth of the filesystem, and another `dataBytes`, free. */
export function isSpacePlenty(dataBytes: number, availableBytes: number, totalBytes: number): boolean {
  return availableBytes - dataBytes >= Math.max(dataBytes, totalBytes / 5);
}
