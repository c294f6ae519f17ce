import fc from 'fast-check';
import { expect, test } from 'vitest';
import { formatSize, parseSize } from '../../src/cli/sizes.js';

test.each([
  ['0', 0],
  ['4096', 4096],
  ['4096B', 4096],
  ['1K', 1024],
  ['8G', 8 * 1024 ** 3],
  ['8g', 8 * 1024 ** 3],
  ['8GiB', 8 * 1024 ** 3],
  ['8 GiB', 8 * 1024 ** 3],
  ['8GB', 8 * 1000 ** 3],
  ['1.5G', 1.5 * 1024 ** 3],
  ['512MiB', 512 * 1024 ** 2],
  ['2T', 2 * 1024 ** 4],
  ['1.001KB', 1001],
  ['2.006MB', 2_006_000],
  ['2.079GB', 2_079_000_000],
  ['8.075GB', 8_075_000_000],
  ['9007199254740991', Number.MAX_SAFE_INTEGER],
  ['0.50K', 512],
])('%s is %i bytes', (text, bytes) => {
  expect(parseSize(text)).toBe(bytes);
});

test.each([
  '',
  'G',
  '-1',
  '1e3',
  '0x10',
  '8Gi',
  '8 G B',
  '1.',
  'NaN',
  '9P9',
  '9007199254740993',
  '0.3K',
  '1.0001KB',
  '0.1',
])('"%s" is refused', (text) => {
  expect(() => parseSize(text)).toThrow();
});

test('whatever a size is shown as can be typed again, to a tenth of its unit', () => {
  fc.assert(
    fc.property(fc.nat({ max: Number.MAX_SAFE_INTEGER - 1 }), (bytes) => {
      const shown = formatSize(bytes);
      expect(shown).toMatch(/^\d{1,4}(\.\d)? (B|[KMGTP]iB)$/);
      if (!shown.includes('.')) expect(parseSize(shown)).toBe(bytes);
    }),
  );
});

test('each size with three decimals is what it says', () => {
  const units = { KB: 1n, MB: 1000n, GB: 1_000_000n, TB: 1_000_000_000n };
  for (const [unit, factor] of Object.entries(units))
    for (let i = 0; i < 10_000; i++) {
      const text = `${Math.floor(i / 1000)}.${String(i % 1000).padStart(3, '0')}${unit}`;
      if (BigInt(parseSize(text)) !== BigInt(i) * factor) expect.fail(text);
    }
});
