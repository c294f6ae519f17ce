import { expect, test } from 'vitest';
import { parseSizeStamp, parseStamp } from '../../src/slot/stamps.js';
import { SLOT_FILES } from '../fixtures/slot-files.js';

const DIGEST = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad';

test('a stamp is 64 hex digits in any case; a newline from another program is trimmed', () => {
  expect(parseStamp(DIGEST.toUpperCase())).toBe(DIGEST);
  expect(parseStamp(DIGEST)).toBe(DIGEST);
  expect(parseStamp(`${DIGEST}\n`)).toBe(DIGEST);
});

test.each([
  ['missing', undefined],
  ['unreadable', null],
  ['empty, as a power cut leaves it', ''],
  ['cut off', DIGEST.slice(1)],
  ['too long', `${DIGEST}0`],
  ['with the name of the algorithm', `sha256:${DIGEST}`],
  ['zeros of a power cut', '\0'.repeat(64)],
  ['two lines', `${DIGEST}\n${DIGEST}`],
])('no digest: %s', (_what, text) => {
  expect(parseStamp(text)).toBeUndefined();
});

test('a size stamp is decimal bytes', () => {
  expect(parseSizeStamp('8388608')).toBe(8388608);
  expect(parseSizeStamp('8388608\n')).toBe(8388608);
  expect(parseSizeStamp(String(Number.MAX_SAFE_INTEGER))).toBe(Number.MAX_SAFE_INTEGER);
});

test('no size stamp is something else than one that holds no size', () => {
  expect(parseSizeStamp(undefined)).toBeUndefined();
  for (const text of [null, '', '-1', '1e9', '0x10', '8 MiB', '1.5', '9007199254740993', '\0\0']) {
    expect(parseSizeStamp(text)).toBeNaN();
  }
});

test('the addon knows each file of a slot that TypeScript reads or writes', async () => {
  const stamps = await import('../../src/slot/stamps.js');
  const names = Object.entries(stamps).filter(([name]) => name.startsWith('CLONE_'));
  expect(names.length).toBeGreaterThan(4);
  for (const [, file] of names) expect(SLOT_FILES).toContain(file);
});
