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
])('%s is %i bytes', (text, bytes) => {
  expect(parseSize(text)).toBe(bytes);
});

test.each(['', 'G', '-1', '1e3', '0x10', '8Gi', '8 G B', '1.', 'NaN', '9P9', '9007199254740993', '0.3K'])(
  '"%s" is refused',
  (text) => {
    expect(() => parseSize(text)).toThrow();
  },
);

test('whatever a size is shown as can be typed again, to a tenth of its unit', () => {
  fc.assert(
    fc.property(fc.nat({ max: Number.MAX_SAFE_INTEGER - 1 }), (bytes) => {
      const shown = formatSize(bytes);
      expect(shown).toMatch(/^\d{1,4}(\.\d)? (B|[KMGTP]iB)$/);
      if (!shown.includes('.')) expect(parseSize(shown)).toBe(bytes);
    }),
  );
});
