// Sorts the names in a folder without holding the event loop: one folder can have a million of them.
import { setImmediate as nextTurn } from 'node:timers/promises';
import { mapInSlices } from './map-in-slices.js';

// About a millisecond of work each.
const SORT_SLICE = 1000;
const MERGE_SLICE = 4000;

/** By their bytes: names are Latin-1. */
export async function sortedNames(names: Iterable<string>): Promise<string[]> {
  const runs: string[][] = [[]];
  let slice: string[] = [];
  for (const name of names) {
    slice.push(name);
    if (slice.length < SORT_SLICE) continue;
    add(runs, slice.sort());
    slice = [];
    await nextTurn();
  }
  add(runs, slice.sort());
  return mergeAll(runs);
}

/** Sorts anything by keys of which no two are the same. */
export async function sortedBy<T>(items: readonly T[], keyOf: (item: T) => string): Promise<T[]> {
  const byKey = new Map<string, T>();
  await mapInSlices(items, (item) => byKey.set(keyOf(item), item));
  return mapInSlices(await sortedNames(byKey.keys()), (key) => byKey.get(key) as T);
}

/** Names that are in order already, as in most folders, are one long run. */
function add(runs: string[][], slice: readonly string[]): void {
  const run = runs.at(-1) as string[];
  const [first] = slice;
  if (first === undefined || run.length === 0 || (run.at(-1) as string) <= first) run.push(...slice);
  else runs.push([...slice]);
}

async function mergeAll(runs: string[][]): Promise<string[]> {
  let left = runs;
  while (left.length > 1) {
    const merged: string[][] = [];
    for (let i = 0; i < left.length; i += 2) merged.push(await merge(left[i] ?? [], left[i + 1] ?? []));
    left = merged;
  }
  return left[0] ?? [];
}

async function merge(a: readonly string[], b: readonly string[]): Promise<string[]> {
  const merged: string[] = [];
  for (let [i, k] = [0, 0]; i < a.length || k < b.length; ) {
    const [left, right] = [a[i], b[k]];
    if (right === undefined || (left !== undefined && left <= right)) {
      merged.push(left as string);
      i++;
    } else {
      merged.push(right);
      k++;
    }
    if (merged.length % MERGE_SLICE === 0) await nextTurn();
  }
  return merged;
}
