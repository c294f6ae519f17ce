// The names of a folder are sorted in slices, and its files are kept in many maps.
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { Children } from '../../src/publish/tree/children.js';
import type { TreeNode } from '../../src/publish/tree/file-tree.js';
import { sortedNames } from '../../src/publish/tree/sorted-names.js';

const COUNT = 50_000;
const inOrder = Array.from({ length: COUNT }, (_, i) => `file-${String(i).padStart(6, '0')}`);
const shuffled = inOrder.map((_, i) => inOrder[(i * 7919) % COUNT] as string);

test.for([
  { order: 'in order', names: inOrder },
  { order: 'backwards', names: inOrder.toReversed() },
  { order: 'shuffled', names: shuffled },
])('many names $order are sorted, and the event loop turns meanwhile', async ({ names }) => {
  let turns = 0;
  let done = false;
  const turning = (async () => {
    for (; !done; turns++) await nextTurn();
  })();
  expect(await sortedNames(names)).toEqual(inOrder);
  done = true;
  await turning;
  expect(turns).toBeGreaterThanOrEqual(COUNT / 1000);
});

test('names are sorted by their bytes', async () => {
  expect(await sortedNames(['b', 'é', 'a', 'B', ''])).toEqual(['', 'B', 'a', 'b', 'é']);
  expect(await sortedNames([])).toEqual([]);
});

test('many files of a folder are found by name, in the order in which they came', () => {
  const children = new Children<TreeNode>();
  const node = (uid: number) => ({ uid }) as TreeNode;
  for (const [i, name] of shuffled.entries()) children.set(name, node(i));
  children.set(shuffled[3] as string, node(-1));
  expect(children.size).toBe(COUNT);
  expect([...children.keys()]).toEqual(shuffled);
  expect(children.get(shuffled[3] as string)?.uid).toBe(-1);
  expect(children.get(shuffled[49_999] as string)?.uid).toBe(49_999);
  expect(children.get('no such file')).toBeUndefined();
  expect(children.has('no such file')).toBe(false);
  expect([...children.values()].length).toBe(COUNT);
});
