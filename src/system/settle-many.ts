// One settled result for each of many, in order, without holding the event loop.
import { allOrNone } from './all-or-none.js';
import { Pause } from './pause.js';

/**
 * Gives to `work` what `parse` makes of the items. An item that it refuses has a result at once. All are parsed before
 * `work` begins, the first thousands of them before this returns.
 */
export async function settleMany<T, P, R>(
  items: readonly T[],
  parse: (item: T, index: number) => P,
  work: (parsed: readonly P[]) => Promise<PromiseSettledResult<R>[]>,
): Promise<PromiseSettledResult<R>[]> {
  const results = new Array<PromiseSettledResult<R>>(items.length);
  const indexes: number[] = [];
  const parsed: P[] = [];
  const pause = new Pause();
  for (const [index, item] of [...items].entries()) {
    if (pause.isDue) await pause.take();
    try {
      parsed.push(parse(item, index));
      indexes.push(index);
    } catch (reason) {
      results[index] = { status: 'rejected', reason };
    }
  }
  const settled = await work(parsed);
  for (const [i, index] of indexes.entries()) results[index] = settled[i] as PromiseSettledResult<R>;
  return results;
}

/** Begins each of `works` in its order, and the next one when one has settled. */
export function settleInLanes<R>(
  works: readonly (() => Promise<R>)[],
  atOnce: number,
): Promise<PromiseSettledResult<R>[]> {
  return allOrNone({ items: works, atOnce, signal: undefined, work: settle });
}

async function settle<R>(work: () => Promise<R>): Promise<PromiseSettledResult<R>> {
  const [settled] = await Promise.allSettled([work()]);
  return settled;
}
