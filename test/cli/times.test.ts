import { expect, test } from 'vitest';
import { formatTime } from '../../src/cli/times.js';

test('a time says that it is in UTC', () => {
  expect(formatTime(new Date(Date.UTC(2026, 10, 29, 21, 5, 0, 250)))).toBe('2026-11-29T21:05:00Z');
  expect(formatTime(new Date(8.64e15))).toBe('+275760-09-13T00:00:00Z');
});
