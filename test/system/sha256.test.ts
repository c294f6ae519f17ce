import { expect, test } from 'vitest';
import { isSha256, isSha256Digest } from '../../src/system/sha256.js';

const HEX = '0123456789abcdef'.repeat(4);

test('a SHA-256 is 64 lower-case hex digits, and nothing around them', () => {
  expect(isSha256(HEX)).toBe(true);
  const others = [
    HEX.toUpperCase(),
    `${HEX}\n`,
    ` ${HEX}`,
    HEX.slice(1),
    `g${HEX.slice(1)}`,
    '',
    [HEX],
    undefined,
  ];
  expect(others.filter(isSha256)).toEqual([]);
});

test('a digest of OCI names its algorithm', () => {
  expect(isSha256Digest(`sha256:${HEX}`)).toBe(true);
  const others = [
    HEX,
    `sha512:${HEX}`,
    `sha256:${HEX}\n`,
    `sha256:${HEX.toUpperCase()}`,
    'sha256:',
    undefined,
  ];
  expect(others.filter(isSha256Digest)).toEqual([]);
});
