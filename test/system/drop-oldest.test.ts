import { expect, test } from 'vitest';
import { dropOldest } from '../../src/system/drop-oldest.js';

test('what was added first goes, until the map has no more than it may', () => {
  const map = new Map([
    ['a', 1],
    ['b', 2],
    ['c', 3],
  ]);
  const dropped: number[] = [];
  dropOldest(map, 5, (value) => dropped.push(value));
  expect(dropped).toEqual([]);
  dropOldest(map, 1, (value) => dropped.push(value));
  expect([dropped, [...map.keys()]]).toEqual([[1, 2], ['c']]);
});
