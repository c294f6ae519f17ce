// Which grown and packed images go when there are too many of them, or they hold too much.
import { expect, test } from 'vitest';
import { overBudget } from '../../src/sealed/budget.js';

/** Keys in the order of their last use, with what each holds. */
const used = (bytes: Readonly<Record<string, number>>) =>
  Object.entries(bytes).map(([key, ownBytes], lastUsedMs) => ({ key, ownBytes, lastUsedMs }));

const THREE = used({ old: 5, mid: 1, new: 3 });

test('nothing goes within the budget, up to its last image and byte', () => {
  expect(overBudget(THREE, { images: 3, bytes: 9 }, 'new')).toEqual([]);
  expect(overBudget([], { images: 0, bytes: 0 }, 'new')).toEqual([]);
});

test('the least recently used go first, and no more than need be, in whatever order they are given', () => {
  for (const candidates of [THREE, [...THREE].reverse()]) {
    expect(overBudget(candidates, { images: 2, bytes: 100 }, 'new')).toEqual(['old']);
    expect(overBudget(candidates, { images: 1, bytes: 100 }, 'new')).toEqual(['old', 'mid']);
    expect(overBudget(candidates, { images: 9, bytes: 8 }, 'new')).toEqual(['old']);
    expect(overBudget(candidates, { images: 9, bytes: 3 }, 'new')).toEqual(['old', 'mid']);
  }
});

test('the image that is kept never goes, though it is the oldest or alone is too much', () => {
  expect(overBudget(THREE, { images: 2, bytes: 100 }, 'old')).toEqual(['mid']);
  expect(overBudget(THREE, { images: 0, bytes: 0 }, 'old')).toEqual(['mid', 'new']);
  expect(overBudget(used({ only: 100 }), { images: 1, bytes: 1 }, 'only')).toEqual([]);
});

test('the candidates are left in their order', () => {
  const candidates = [...THREE].reverse();
  overBudget(candidates, { images: 0, bytes: 0 }, 'none');
  expect(candidates.map(({ key }) => key)).toEqual(['new', 'mid', 'old']);
});
