import { getEventListeners } from 'node:events';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test, vi } from 'vitest';
import { allOrNone } from '../../src/system/all-or-none.js';
import { onAbort, withController } from '../../src/system/on-abort.js';
import { SingleFlight } from '../../src/system/single-flight.js';
import { Task } from '../../src/system/task.js';
import { Turns } from '../../src/system/turns.js';

const listeners = (signal: AbortSignal) => getEventListeners(signal, 'abort').length;

test('one signal has one listener for all that wait, and none afterwards', async () => {
  const any = vi.spyOn(AbortSignal, 'any');
  const { signal } = new AbortController();
  const turns = new Turns(1);
  const flights = new SingleFlight<void>();
  let most = 0;
  const work = async () => {
    most = Math.max(most, listeners(signal));
    await nextTurn();
  };
  const items = Array.from({ length: 30 }, (_, i) => i);
  await Promise.all([
    ...items.map(() => turns.run(new Task('job', signal), work)),
    ...items.map((i) => flights.join(`${i % 2}`, new Task('job', signal), work)),
    ...items.map(() => withController(signal, work)),
    allOrNone({ items, atOnce: 20, signal, work }),
  ]);
  expect(most).toBe(1);
  expect(listeners(signal)).toBe(0);
  expect(any).not.toHaveBeenCalled();
});

test('an abort reaches all that still wait, with its reason', async () => {
  const controller = new AbortController();
  const acted: string[] = [];
  const stop = onAbort(controller.signal, () => acted.push('stopped'));
  onAbort(controller.signal, () => acted.push('first'));
  onAbort(controller.signal, () => acted.push('second'));
  stop();
  const reason = new Error('enough');
  await withController(controller.signal, async (own) => {
    controller.abort(reason);
    expect(own.signal.reason).toBe(reason);
  });
  expect(acted).toEqual(['first', 'second']);
  expect(listeners(controller.signal)).toBe(0);
  await withController(controller.signal, async (own) => expect(own.signal.reason).toBe(reason));
});
