// A long manifest is parsed in pieces. What comes of it, or is refused, is what JSON.parse makes of the whole.
import { expect, test } from 'vitest';
import { parseLongJson } from '../../src/remote/long-json.js';
import { KiB } from '../fixtures/images.js';
import { Random } from '../fixtures/random.js';

const LONG = 64 * KiB;

/** An item that is hard to cut at: brackets, quotes and commas in its texts, lists and objects in it. */
const item = (random: Random, i: number) =>
  random.pick<unknown>([
    i,
    '],[{"\\"}',
    'é€\\',
    [i, [', ']],
    { digest: `${i}`, annotations: { ']': '"', '\\': [] } },
    null,
  ]);

async function expectSame(text: string): Promise<void> {
  let expected: unknown;
  try {
    expected = JSON.parse(text);
  } catch {
    await expect(parseLongJson(Buffer.from(text))).rejects.toThrow(SyntaxError);
    return;
  }
  expect(JSON.stringify(await parseLongJson(Buffer.from(text)))).toBe(JSON.stringify(expected));
}

test('objects with lists of any length are parsed as JSON.parse does', async () => {
  const random = new Random(111);
  for (let round = 0; round < 10; round++) {
    const list = () => Array.from({ length: random.below(20_000) }, (_, i) => item(random, i));
    const value = { a: 1, layers: list(), b: { list: list() }, none: [], manifests: list(), z: '[' };
    await expectSame(JSON.stringify(value, undefined, random.below(2)));
  }
});

test('of two values with one key the last counts, and __proto__ is a key as any other', async () => {
  const long = JSON.stringify(Array.from({ length: LONG / 4 }, () => 'four'));
  await expectSame(`{"a":${long},"a":[1]}`);
  await expectSame(`{"a":[1],"a":${long}}`);
  await expectSame(`{"a":${long},"a":7}`);
  const value = await parseLongJson(Buffer.from(`{"__proto__":${long}}`));
  expect(Object.keys(value as object)).toEqual(['__proto__']);
  expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
});

test('what is changed by chance is refused where JSON.parse refuses it', async () => {
  const random = new Random(112);
  const text = JSON.stringify({ layers: Array.from({ length: 3000 }, (_, i) => item(random, i)), z: [1] });
  expect(text.length).toBeGreaterThan(LONG / 2);
  const long = text.replace('"layers":[', `"layers":[${'"12345678",'.repeat((2 * LONG) / 11)}`);
  for (let round = 0; round < 150; round++) {
    const at = random.below(long.length);
    const change = random.pick([...'[]{},":\\ 0', '', ',,', '],[']);
    await expectSame(long.slice(0, at) + change + long.slice(at + random.below(2)));
  }
});

test('a list without an item between two of its commas is refused, wherever it is cut', async () => {
  const half = '"12345678",'.repeat(LONG / 11 + 1);
  for (const list of [`${half},${half}1`, `${half}${half}`, `${half} , ${half}1`, `,${half}1`, half, ','])
    await expect(parseLongJson(Buffer.from(`{"a":[${list}],"b":"${'x'.repeat(LONG)}"}`))).rejects.toThrow(
      SyntaxError,
    );
});
