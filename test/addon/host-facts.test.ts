import { expect, test } from 'vitest';
import { binaryIn } from '../../src/addon/host-facts.js';

test('the path of the addon is told whole, spaces and all', () => {
  const maps = [
    '7f00-7f01 r-xp 00000000 fe:01 1234                       /usr/lib/libc.so.6',
    '7f02-7f03 r--p 00001000 fe:01 5678                       /srv/my app/prebuilds/microvm-rootfs.node',
    '',
  ].join('\n');
  expect(binaryIn(maps)).toBe('/srv/my app/prebuilds/microvm-rootfs.node');
  expect(binaryIn('7f00-7f01 rw-p 00000000 00:00 0\n')).toBeUndefined();
});
