import { expect, test } from 'vitest';
import { Task } from '../../src/system/task.js';
import { thrown } from '../fixtures/rejection.js';

test('a task whose signal was aborted throws, and says what it was', () => {
  const controller = new AbortController();
  const task = new Task('cloning vm-1', controller.signal);
  task.checkAborted();
  controller.abort();
  const { message } = thrown(() => task.checkAborted(), 'ABORT_ERR');
  expect(message).toContain('cloning vm-1');
  new Task('cloning vm-1', undefined).checkAborted();
});

test('the same work may be ended by another signal', () => {
  const controller = new AbortController();
  const task = new Task('cloning vm-1', undefined).endedBy(controller.signal);
  controller.abort();
  thrown(() => task.checkAborted(), 'ABORT_ERR');
});
