// The files of a large folder are kept in many maps.
import { expect, test } from 'vitest';
import { Children } from '../../src/publish/tree/children.js';
import type { TreeNode } from '../../src/publish/tree/file-tree.js';

const COUNT = 50_000;
const shuffled = Array.from({ length: COUNT }, (_, i) => `file-${(i * 7919) % COUNT}`);

test('many files of a folder are found by name', () => {
  const children = new Children<TreeNode>();
  const node = (uid: number) => ({ uid }) as TreeNode;
  for (const [i, name] of shuffled.entries()) children.set(name, node(i));
  children.set(shuffled[3] as string, node(-1));
  expect(children.size).toBe(COUNT);
  expect([...children.keys()].sort()).toEqual([...shuffled].sort());
  expect(children.get(shuffled[3] as string)?.uid).toBe(-1);
  expect(children.get(shuffled[49_999] as string)?.uid).toBe(49_999);
  expect(children.get('no such file')).toBeUndefined();
  expect(children.has('no such file')).toBe(false);
  children.delete(shuffled[3] as string);
  expect(children.has(shuffled[3] as string)).toBe(false);
  expect(children.size).toBe(COUNT - 1);
});

test('a file of a large folder is looked for in one small map, not in all of them', () => {
  const children = new Children<number>();
  const sizes = new Set<number>();
  let looks = 0;
  const { get, has } = Map.prototype;
  const look = <R>(map: Map<unknown, unknown>, by: (key: unknown) => R, key: unknown): R => {
    looks++;
    sizes.add(map.size);
    return by.call(map, key);
  };
  Map.prototype.get = function (key) {
    return look(this, get, key);
  };
  Map.prototype.has = function (key) {
    return look(this, has, key) as boolean;
  };
  try {
    for (const [i, name] of shuffled.entries()) {
      children.get(name);
      children.set(name, i);
    }
  } finally {
    Object.assign(Map.prototype, { get, has });
  }
  expect(looks).toBeLessThan(2 * COUNT);
  expect(Math.max(...sizes)).toBeLessThan(10_000);
});
