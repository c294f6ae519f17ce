import { setImmediate as nextTurn } from 'node:timers/promises';

/** Maps a long list, and lets the event loop go on after every `slice` of it: about a millisecond of work. */
export async function mapInSlices<T, R>(
  items: readonly T[],
  map: (item: T, index: number) => R,
  slice = 1000,
): Promise<R[]> {
  const mapped: R[] = [];
  for (const item of items) {
    if (mapped.push(map(item, mapped.length)) % slice === 0) await nextTurn();
  }
  return mapped;
}
