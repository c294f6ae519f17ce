import { expect, test } from 'vitest';
import { crc32c } from '../../src/image/crc32c.js';

// RFC 3720, B.4, and the check value of every table of CRCs; all with the inversion at the end that ext4 leaves out.
test.each([
  ['123456789', Buffer.from('123456789'), 0xe3069283],
  ['32 zeros', Buffer.alloc(32), 0x8a9136aa],
  ['32 ones', Buffer.alloc(32, 0xff), 0x62a8ab43],
])('of %s', (_, bytes, expected) => {
  expect((crc32c(0xffff_ffff, bytes) ^ 0xffff_ffff) >>> 0).toBe(expected);
});

test('goes on where it ended', () => {
  const bytes = Buffer.from('123456789');
  const half = crc32c(0xffff_ffff, bytes.subarray(0, 4));
  expect(crc32c(half, bytes.subarray(4))).toBe(crc32c(0xffff_ffff, bytes));
});
