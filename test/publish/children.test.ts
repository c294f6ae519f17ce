// The files of a large folder are kept in many maps.
import { expect, test, vi } from 'vitest';
import { Children } from '../../src/publish/tree/children.js';
import type { TreeNode } from '../../src/publish/tree/file-tree.js';

const COUNT = 50_000;
const shuffled = Array.from({ length: COUNT }, (_, i) => `file-${(i * 7919) % COUNT}`);

test('many files of a folder are found by name, the first in the order in which they came', () => {
  const children = new Children<TreeNode>();
  const node = (uid: number) => ({ uid }) as TreeNode;
  for (const [i, name] of shuffled.entries()) children.set(name, node(i));
  children.set(shuffled[3] as string, node(-1));
  expect(children.size).toBe(COUNT);
  const names = [...children.keys()];
  expect(names.slice(0, 8192)).toEqual(shuffled.slice(0, 8192));
  expect(names.toSorted()).toEqual(shuffled.toSorted());
  expect(children.get(shuffled[3] as string)?.uid).toBe(-1);
  expect(children.get(shuffled[49_999] as string)?.uid).toBe(49_999);
  expect(children.get('no such file')).toBeUndefined();
  expect(children.has('no such file')).toBe(false);
  children.delete(shuffled[49_999] as string);
  expect(children.has(shuffled[49_999] as string)).toBe(false);
  expect(children.size).toBe(COUNT - 1);
});

test('a name is looked for in few maps, however many files a folder has', () => {
  const children = new Children<number>();
  const has = vi.spyOn(Map.prototype, 'has');
  try {
    for (const [i, name] of shuffled.entries()) children.set(name, i);
    has.mockClear();
    for (const name of shuffled) children.get(name);
    // With as many maps as the files need, all of them searched, it would be 60 for each of a million.
    expect(has.mock.calls.length).toBeLessThanOrEqual(2 * COUNT);
  } finally {
    has.mockRestore();
  }
});
