// How many files this process may have open at once. Node raises the limit only to the system's maximum, which can be
// low.
import { readFileSync } from 'node:fs';

let limit: number | undefined;

// With 4,096 descriptors, every caller gets what it asks for.
const PARTS = 8;

/** How many files of one kind may be open: `most`, or fewer where this process may not have many open. */
export function shareOfDescriptors(most: number): number {
  limit ??= readLimit();
  return Math.max(1, Math.min(most, Math.floor(limit / PARTS)));
}

/** Infinite where it is not told. */
function readLimit(): number {
  try {
    const [, soft] = /^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1')) ?? [];
    return soft === undefined ? Number.POSITIVE_INFINITY : Number(soft);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
