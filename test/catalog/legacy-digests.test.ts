// The file in which earlier versions kept digests: believed whole or not at all, and for the exact state of a file.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, inject, test } from 'vitest';
import { LegacyDigests, parse } from '../../src/catalog/legacy-digests.js';
import { sha256 } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { Random } from '../fixtures/random.js';

const DIGEST = sha256('template');
const ROW = ['7', '42', 4096, '1600000000000000001', '1600000000000000002', 1, DIGEST] as const;

function fileOf(rows: unknown, head: object = {}): string {
  const text = typeof rows === 'string' ? rows : JSON.stringify(rows);
  return `${JSON.stringify({ version: 1, check: sha256(text), ...head })}\n${text}\n`;
}

const identity = {
  device: 7n,
  inode: 42n,
  sizeBytes: 4096,
  mtimeNs: 1600000000000000001n,
  ctimeNs: 1600000000000000002n,
  links: 1,
  mount: 0n,
};

async function legacyDigests(contents: string | Buffer): Promise<LegacyDigests> {
  const path = join((await Host.in(inject('scratch'))).root, 'digests.json');
  await writeFile(path, contents);
  return new LegacyDigests(path);
}

const get = (file: LegacyDigests, change: object = {}, filesystem = 'xfs:1') =>
  file.get({ path: '/t', identity: { ...identity, ...change }, filesystem });

test('a digest is told for the file in the very state that it was recorded for', async () => {
  const file = await legacyDigests(fileOf([ROW]));
  expect(await get(file)).toBe(DIGEST);
  // How often it is linked, and by which mount it is reached, is no part of that.
  expect(await get(file, { links: 9, mount: 5n })).toBe(DIGEST);
  for (const change of [
    { device: 8n },
    { inode: 43n },
    { sizeBytes: 4097 },
    { mtimeNs: identity.mtimeNs + 1n },
    { ctimeNs: identity.ctimeNs + 1n },
  ])
    expect(await get(file, change), JSON.stringify(Object.keys(change))).toBeUndefined();
});

test('where inodes and times tell no file apart, nothing is told', async () => {
  const whole = ['7', '42', 4096, '1600000000000000000', '1600000000000000000', 1, DIGEST];
  const file = await legacyDigests(fileOf([whole]));
  const times = { mtimeNs: 1600000000000000000n, ctimeNs: 1600000000000000000n };
  expect(await get(file, times)).toBeUndefined();
  expect(await get(await legacyDigests(fileOf([ROW])), {}, '')).toBeUndefined();
});

test('of two rows for one file the last counts', async () => {
  const other = sha256('other');
  expect(await get(await legacyDigests(fileOf([ROW, [...ROW.slice(0, 6), other]])))).toBe(other);
});

test.each<[string, string]>([
  ['nothing', ''],
  ['zeros, as after a power cut', '\0'.repeat(500)],
  ['no JSON', 'digests'],
  ['a head alone', '{"version":1}'],
  ['a null', 'null\nnull\n'],
  ['another version', fileOf([ROW], { version: 2 })],
  ['a wrong check', fileOf([ROW], { check: sha256('other') })],
  ['no list', fileOf({})],
  ['a row that is none', fileOf([null])],
  ['a row with too little', fileOf([ROW.slice(0, 5)])],
  ['numbers that are none', fileOf([['x', ...ROW.slice(1)]])],
  ['a size that is no number', fileOf([['7', '42', '4096', ...ROW.slice(3)]])],
  ['a digest that is none', fileOf([[...ROW.slice(0, 6), 'f'.repeat(63)]])],
  ['a digest in capital letters', fileOf([[...ROW.slice(0, 6), DIGEST.toUpperCase()]])],
  ['one bad row among good ones', fileOf([ROW, [...ROW.slice(0, 5), 1.5, DIGEST]])],
])('a file with %s is not believed, and no failure', async (_, text) => {
  expect(await parse(text)).toBeUndefined();
  expect(await get(await legacyDigests(text))).toBeUndefined();
});

test('one byte changed by chance, or the end missing, and nothing of the file is believed', async () => {
  const text = fileOf([ROW, ['7', '43', ...ROW.slice(2)]]);
  expect((await parse(text))?.size).toBe(2);
  const random = new Random(131);
  for (let i = 0; i < 500; i++) {
    // The line break at the end is not needed.
    const at = random.below(text.length - 1);
    const harmed = random.chance(0.5) ? text.slice(0, at) : `${text.slice(0, at)}#${text.slice(at + 1)}`;
    expect(await parse(harmed), harmed).toBeUndefined();
  }
});

test('no file, one that is too long, and one that comes later', async () => {
  const path = join((await Host.in(inject('scratch'))).root, 'digests.json');
  expect(await get(new LegacyDigests(path))).toBeUndefined();
  const many = Array.from({ length: 40_000 }, (_, i) => ['7', `${i}`, ...ROW.slice(2)]);
  await writeFile(path, fileOf(many));
  expect(await get(new LegacyDigests(path))).toBeUndefined();
  await writeFile(path, fileOf(many.slice(0, 10_000)));
  expect(await get(new LegacyDigests(path))).toBe(DIGEST);
});

test('a long file is read in slices, in which every row counts', async () => {
  const rows = Array.from({ length: 24_000 }, (_, i) => ['7', `${i}`, ...ROW.slice(2)]);
  let turns = 0;
  let done = false;
  const turning = (async () => {
    for (; !done; turns++) await nextTurn();
  })();
  const entries = await parse(fileOf(rows));
  done = true;
  await turning;
  expect(entries?.size).toBe(rows.length);
  expect(turns).toBeGreaterThan(50);
  expect(await parse(fileOf([...rows, ROW.with(6, 'f')]))).toBeUndefined();
});
