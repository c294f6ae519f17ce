import { setTimeout as sleep } from 'node:timers/promises';

// Whoever flushes, measures or verifies an image has it open for an instant, and a VMM for as long as its VM runs.
const LOOKS = 10;
const REST_MS = 10;

/**
 * Repeats `look` while it finds the image in use, for 0.1 s at most, and returns what it found last.
 */
export async function untilUnused<T>(look: () => Promise<T>, isInUse: (found: T) => boolean): Promise<T> {
  for (let looks = 1; ; looks++) {
    const found = await look();
    if (looks === LOOKS || !isInUse(found)) return found;
    await sleep(REST_MS);
  }
}
