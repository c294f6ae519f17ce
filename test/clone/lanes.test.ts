// Only so many trips of large batches run at once.
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { Lanes } from '../../src/clone/lanes.js';

test('no more trips than lanes run at once, in the order in which they came, also after one that failed', async () => {
  const lanes = new Lanes(2);
  const started: number[] = [];
  let running = 0;
  let most = 0;
  const trip = (i: number) =>
    lanes.run(async () => {
      started.push(i);
      most = Math.max(most, ++running);
      await nextTurn();
      running--;
      if (i === 1) throw new Error('failed');
      return i;
    });
  const settled = await Promise.allSettled([0, 1, 2, 3, 4, 5].map(trip));
  expect(settled.map(({ status }) => status === 'fulfilled')).toEqual([true, false, true, true, true, true]);
  expect(started).toEqual([0, 1, 2, 3, 4, 5]);
  expect(most).toBe(2);
  expect(await lanes.run(async () => 'free again')).toBe('free again');
});
