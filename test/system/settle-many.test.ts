import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { settleInLanes, settleMany } from '../../src/system/settle-many.js';
import { workFor } from '../fixtures/work-for.js';

const COUNT = 40;

test('each item has its result in its place, parsed or refused', async () => {
  const parse = (item: number) => {
    if (item % 3 === 0) throw new Error(`refused ${item}`);
    return async () => {
      if (item % 3 === 1) throw new Error(`failed ${item}`);
      return item;
    };
  };
  const settled = await settleMany([0, 1, 2, 3, 4, 5], parse, (works) => settleInLanes(works, 2));
  expect(settled.map((each) => (each.status === 'fulfilled' ? each.value : each.reason.message))).toEqual([
    'refused 0',
    'failed 1',
    2,
    'refused 3',
    'failed 4',
    5,
  ]);
});

test('no more works are under way than were allowed', async () => {
  let running = 0;
  let most = 0;
  const work = async () => {
    most = Math.max(most, ++running);
    await nextTurn();
    running--;
  };
  await settleInLanes(new Array<typeof work>(COUNT).fill(work), 3);
  expect(most).toBe(3);
});

test('neither parsing nor beginning holds the event loop', async () => {
  let parsed = 0;
  let begun = 0;
  const parse = () => {
    workFor(1);
    parsed++;
    return async () => {
      workFor(1);
      begun++;
    };
  };
  const items = new Array<undefined>(COUNT).fill(undefined);
  const all = settleMany(items, parse, (works) => settleInLanes(works, COUNT / 4));
  expect(parsed).toBeLessThan(COUNT / 2);
  while (begun === 0) await nextTurn();
  expect(parsed).toBe(COUNT);
  expect(begun).toBeLessThan(COUNT);
  expect(await all).toHaveLength(COUNT);
});
