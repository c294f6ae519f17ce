// How long to wait until the time of a later change tells it from the present state of a file.
import { expect, test } from 'vitest';
import { hasWholeSeconds, msUntilDistinctTime } from '../../src/image/file-times.js';
import { Random } from '../fixtures/random.js';

const NOW = 1_600_000_000_500;
const MS = 1_000_000n;

/** A file that was changed so long ago. */
const changed = (agoMs: number, extraNs = 1n) => ({ ctimeNs: BigInt(NOW - agoMs) * MS + extraNs });

const wait = (agoMs: number, filesystem = 'xfs:1', kernel = '6.13.0', extraNs = 1n) =>
  msUntilDistinctTime(changed(agoMs, extraNs), filesystem, NOW, kernel);

test('whole seconds are those without a rest, before 1970 too', () => {
  expect([0n, 5_000_000_000n, -3_000_000_000n].map((ctimeNs) => hasWholeSeconds({ ctimeNs }))).toEqual([
    true,
    true,
    true,
  ]);
  expect([1n, -1n, 999_999_999n, 5_000_000_001n].map((ctimeNs) => hasWholeSeconds({ ctimeNs }))).toEqual([
    false,
    false,
    false,
    false,
  ]);
});

test('a kernel that gives every change a time of its own needs no wait, where the file system takes part', () => {
  for (const kernel of ['6.13.0', '6.13.0-rc1', '6.18', '7.0.1-custom', '10.2']) {
    for (const filesystem of ['xfs:1', 'btrfs:2', 'ext:3'])
      expect(wait(0, filesystem, kernel), kernel).toBe(0);
    for (const filesystem of ['', 'tmpfs:1', 'zfs:1', 'myxfs:1', 'nfs:1'])
      expect(wait(0, filesystem, kernel), filesystem).toBe(20);
  }
  for (const kernel of ['6.12.99', '5.19.0', '6.1.0-13-amd64', '4.14', 'odd', ''])
    expect(wait(0, 'xfs:1', kernel), kernel).toBe(20);
});

test('what is left of a tick is waited for, and of a second where times are whole', () => {
  expect([0, 1, 19, 20, 21, 10_000].map((ago) => wait(ago, 'tmpfs:1'))).toEqual([20, 19, 1, 0, 0, 0]);
  // 500 ms ago is a whole second.
  expect(wait(500, 'xfs:1', '6.13.0', 0n)).toBe(520);
  expect(wait(1500, 'xfs:1', '6.13.0', 0n)).toBe(0);
});

test('FAT has even seconds: those are waited for where the file system may be one', () => {
  for (const filesystem of ['', 'vfat:1', 'tmpfs:1']) {
    expect(wait(500, filesystem, '6.13.0', 0n)).toBe(1520);
    expect(wait(1500, filesystem, '6.13.0', 0n)).toBe(0);
    expect(wait(2500, filesystem, '6.13.0', 0n)).toBe(0);
  }
  for (const filesystem of ['xfs:1', 'btrfs:1', 'ext:1'])
    expect(wait(500, filesystem, '6.13.0', 0n)).toBe(520);
});

test('a time that a clock set back left in the future is waited for only if it may come again at once', () => {
  expect(wait(-10, 'tmpfs:1')).toBe(30);
  expect(wait(-19, 'tmpfs:1')).toBe(39);
  for (const ago of [-20, -1000, -86_400_000]) expect(wait(ago, 'tmpfs:1')).toBe(0);
});

test('no wait is longer than two seconds and two ticks, for any file on any file system', () => {
  const random = new Random(141);
  for (let i = 0; i < 2000; i++) {
    const ctimeNs = BigInt(random.below(2 ** 32) - 2 ** 31) * 2n ** 32n + BigInt(random.below(2 ** 32));
    for (const time of [ctimeNs, ctimeNs - (ctimeNs % 1_000_000_000n)]) {
      const now = random.chance(0.5) ? NOW : Number(time / MS) + random.below(3000) - 1500;
      const ms = msUntilDistinctTime(
        { ctimeNs: time },
        random.pick(['', 'xfs:1']),
        now,
        random.pick(['6.1', '6.13']),
      );
      expect(ms).toBeGreaterThanOrEqual(0);
      expect(ms).toBeLessThanOrEqual(2040);
    }
  }
});
