// The files of a large folder are kept in many maps.
import { expect, test } from 'vitest';
import { Children } from '../../src/publish/tree/children.js';
import type { TreeNode } from '../../src/publish/tree/file-tree.js';

const COUNT = 50_000;
const shuffled = Array.from({ length: COUNT }, (_, i) => `file-${(i * 7919) % COUNT}`);

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
