// Long lists are worked through in slices, between which the event loop goes on.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { mapInSlices } from '../../src/system/map-in-slices.js';
import { namesIn, rawNamesIn } from '../../src/system/names-in.js';
import { sortedNames } from '../../src/system/sorted-names.js';
import { Host } from '../fixtures/host.js';

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

test('a long list is mapped in order, and the event loop turns meanwhile', async () => {
  let turns = 0;
  let done = false;
  const turning = (async () => {
    for (; !done; turns++) await nextTurn();
  })();
  expect(await mapInSlices(inOrder, (name) => name.toUpperCase())).toEqual(
    inOrder.map((name) => name.toUpperCase()),
  );
  done = true;
  await turning;
  expect(turns).toBeGreaterThanOrEqual(COUNT / 1000);
});

test('all names of a folder are told, and none of one that is not there', async () => {
  const { root } = await Host.in();
  const names = [...inOrder.slice(0, 600), 'é', 'templates'];
  for (const name of names.slice(0, -1)) await writeFile(join(root, name), '');
  expect((await namesIn(root)).sort()).toEqual(names.toSorted());
  expect(await rawNamesIn(root)).toContain('\u00c3\u00a9');
  expect(await namesIn(join(root, 'none'))).toEqual([]);
  await expect(namesIn(join(root, 'é', 'x'))).rejects.toMatchObject({ code: 'ENOTDIR' });
});
