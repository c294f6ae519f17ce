// Options of what is made from a slot.
import { expect, test } from 'vitest';
import { parseCopyOptions } from '../../src/slot/slot-options.js';
import { thrown } from '../fixtures/rejection.js';

test('what is not given is left to the library, and a flush is not asked for', () => {
  expect(parseCopyOptions('forking', {})).toEqual({
    owner: undefined,
    mode: undefined,
    durable: false,
    signal: undefined,
  });
  const { signal } = new AbortController();
  const given = { owner: { uid: 1, gid: 2 }, mode: 0o640, durable: true, signal };
  expect(parseCopyOptions('forking', given)).toEqual(given);
});

test('an option of another call is refused', () => {
  const options = { durable: true, refuseInUse: true };
  const { message } = thrown(() => parseCopyOptions('exporting', options), 'INVALID_ARGUMENT');
  expect(message).toContain('owner, mode, durable, signal');
});

test.each([
  { owner: 5 },
  { owner: { uid: 1 } },
  { mode: 0o1777 },
  { mode: '640' },
  { durable: 1 },
  { signal: {} },
])('%j is refused', (options) => {
  thrown(() => parseCopyOptions('forking', options as never), 'INVALID_ARGUMENT');
});

test('a signal that was aborted before is told by what was asked for', () => {
  const { message } = thrown(
    () => parseCopyOptions('forking vm-1', { signal: AbortSignal.abort() }),
    'ABORT_ERR',
  );
  expect(message).toContain('forking vm-1');
});
