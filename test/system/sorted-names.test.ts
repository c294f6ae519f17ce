// Long lists are worked through in slices, between which the event loop goes on.
import { expect, test } from 'vitest';
import { mapInSlices } from '../../src/system/map-in-slices.js';
import { sortedBy, sortedNames } from '../../src/system/sorted-names.js';
import { turnsDuring } from '../fixtures/turns.js';

const COUNT = 50_000;
const inOrder = Array.from({ length: COUNT }, (_, i) => `file-${String(i).padStart(6, '0')}`);
const shuffled = inOrder.map((_, i) => inOrder[(i * 7919) % COUNT] as string);

test.for([
  { order: 'in order', names: inOrder },
  { order: 'backwards', names: inOrder.toReversed() },
  { order: 'shuffled', names: shuffled },
])('many names $order are sorted, and the event loop turns meanwhile', async ({ names }) => {
  const { result, turns } = await turnsDuring(() => sortedNames(names));
  expect(result).toEqual(inOrder);
  expect(turns).toBeGreaterThanOrEqual(COUNT / 1000);
});

test('names are sorted by their bytes', async () => {
  expect(await sortedNames(['b', 'é', 'a', 'B', ''])).toEqual(['', 'B', 'a', 'b', 'é']);
  expect(await sortedNames([])).toEqual([]);
});

test('anything is sorted by a key, and the event loop turns meanwhile', async () => {
  const things = shuffled.map((name, i) => ({ name, i }));
  const { result, turns } = await turnsDuring(() => sortedBy(things, ({ name }) => name));
  expect(result.map(({ name }) => name)).toEqual(inOrder);
  expect(new Set(result).size).toBe(COUNT);
  expect(turns).toBeGreaterThanOrEqual(COUNT / 1000);
});

test('a long list is mapped in order, and the event loop turns meanwhile', async () => {
  const { result, turns } = await turnsDuring(() => mapInSlices(inOrder, (name) => name.toUpperCase()));
  expect(result).toEqual(inOrder.map((name) => name.toUpperCase()));
  expect(turns).toBeGreaterThanOrEqual(COUNT / 1000);
});
