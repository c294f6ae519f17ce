// Several visits at once: each waits for the disk and for other processes most of the time.
const LANES = 2;

/** Runs `work` for every item, each lane with something of its own. Results are in the order of the items. */
export async function inLanes<Item, Result, Own>(
  items: readonly Item[],
  newLane: () => Own,
  work: (item: Item, own: Own, index: number) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = new Array(items.length);
  let next = 0;
  const lane = async () => {
    const own = newLane();
    for (let i = next++; i < items.length; i = next++) results[i] = await work(items[i] as Item, own, i);
  };
  // The other lane is waited for as well: its folder must not be taken from under it.
  for (const ended of await Promise.allSettled(Array.from({ length: LANES }, lane)))
    if (ended.status === 'rejected') throw ended.reason;
  return results;
}
