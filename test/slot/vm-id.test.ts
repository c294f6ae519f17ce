import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test, vi } from 'vitest';
import { safeVmId } from '../../src/index.js';
import { parseVmId, rawIds } from '../../src/slot/vm-id.js';
import { Task } from '../../src/system/task.js';
import { rejection, thrown } from '../fixtures/rejection.js';

test.each([
  ['vm-1', 'vm-1'],
  ['Aa0_-', 'Aa0_-'],
  ['a/b', 'a_b'],
  ['../../etc/passwd', '______etc_passwd'],
  ['a.b', 'a_b'],
  ['a b\tc\0d', 'a_b_c_d'],
  ['é', '_'],
  ['e\u0301', 'e_'],
  ['🦀', '_'],
  ['👨‍👩‍👧', '_____'],
  ['\ud83e', '_'],
  ['', ''],
])('safeVmId(%j) is %j', (id, safe) => {
  expect(safeVmId(id)).toBe(safe);
});

test('what is no string has no safe form', () => {
  thrown(() => safeVmId(1 as never), 'INVALID_VM_ID');
});

test('a safe id is left as it is', () => {
  for (const id of ['vm-1', '_', '-', 'A'.repeat(255)]) expect(safeVmId(safeVmId(id))).toBe(safeVmId(id));
});

test('an id that sanitising changes keeps its raw form', () => {
  expect(parseVmId('a/b')).toEqual({ raw: 'a/b', safe: 'a_b' });
});

test('a name of 255 characters is the longest that a folder can have', () => {
  expect(parseVmId('v'.repeat(255)).safe).toHaveLength(255);
  thrown(() => parseVmId('v'.repeat(256)), 'INVALID_VM_ID');
  // Counted in code points: 255 crabs are 510 UTF-16 units and 1020 bytes, but 255 underscores.
  expect(parseVmId('🦀'.repeat(255)).safe).toBe('_'.repeat(255));
});

test('an id of megabytes is refused by its length: its characters are not looked at', () => {
  const replace = vi.spyOn(String.prototype, 'replace');
  try {
    for (const part of ['a/', '🦀', '\0\0']) thrown(() => parseVmId(part.repeat(1_000_000)), 'INVALID_VM_ID');
    expect(Math.max(...(replace.mock.contexts as string[]).map(({ length }) => length))).toBeLessThan(1000);
  } finally {
    replace.mockRestore();
  }
});

test('an id of NUL bytes alone looks like one that a power cut has lost, and is refused', () => {
  for (const id of ['', '\0', '\0\0\0']) thrown(() => parseVmId(id), 'INVALID_VM_ID');
  expect(parseVmId('a\0b').safe).toBe('a_b');
});

test('a lone surrogate has no UTF-8 form and is refused', () => {
  thrown(() => parseVmId('vm-\ud83e'), 'INVALID_VM_ID');
  thrown(() => parseVmId('\udd80vm'), 'INVALID_VM_ID');
});

test.each([[undefined], [null], [7], [{}], [['vm']], [Symbol('vm')], [10n]])('%s is no id', (id) => {
  thrown(() => parseVmId(id), 'INVALID_VM_ID');
});

test('a message shows an id without what a terminal would act on, and shortened', () => {
  const error = thrown(() => parseVmId(`\u001b[31m${'x'.repeat(1000)}`), 'INVALID_VM_ID');
  expect(error.message).not.toContain('\u001b');
  expect(error.message.length).toBeLessThan(300);
});

test('the event loop goes on while many ids are read, and an abort ends it', async () => {
  const ids = Array.from({ length: 200_000 }, (_, i) => `a/${i}`);
  let done = false;
  const reading = rawIds(new Task('reading', undefined), ids).finally(() => {
    done = true;
  });
  await nextTurn();
  expect(done).toBe(false);
  const read = await reading;
  expect(ids.filter((id) => !read.has(id))).toEqual([]);
  expect([read.has('a'), read.has('a/200000')]).toEqual([false, false]);
  const controller = new AbortController();
  const aborted = rawIds(new Task('reading', controller.signal), ids);
  controller.abort();
  await rejection(aborted, 'ABORT_ERR');
});
