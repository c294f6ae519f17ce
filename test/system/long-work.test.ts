import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { inSlices, inTurn } from '../../src/system/long-work.js';
import { Task } from '../../src/system/task.js';
import { rejection } from '../fixtures/rejection.js';

test('at most two long jobs run at once, in the order they came', async () => {
  let running = 0;
  let most = 0;
  const order: number[] = [];
  await Promise.all(
    Array.from({ length: 8 }, (_, i) =>
      inTurn(new Task('job', undefined), async () => {
        order.push(i);
        most = Math.max(most, ++running);
        await sleep(2);
        running--;
      }),
    ),
  );
  expect(most).toBe(2);
  expect(order).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
});

test('a job that fails lets the next one run', async () => {
  const jobs = Array.from({ length: 6 }, (_, i) =>
    inTurn(new Task('job', undefined), async () => {
      if (i % 2 === 0) throw new Error(`job ${i}`);
      return i;
    }),
  );
  const outcomes = await Promise.allSettled(jobs);
  expect(outcomes.map(({ status }) => status === 'fulfilled')).toEqual([
    false,
    true,
    false,
    true,
    false,
    true,
  ]);
});

test('an abort reaches a job that waits for its turn, which then never runs', async () => {
  const controller = new AbortController();
  let ran = false;
  const busy = [0, 1].map(() => inTurn(new Task('busy', undefined), () => sleep(20)));
  const waiting = inTurn(new Task('waiting', controller.signal), async () => {
    ran = true;
  });
  controller.abort();
  await rejection(waiting, 'ABORT_ERR');
  await Promise.all(busy);
  await inTurn(new Task('after', undefined), async () => {});
  expect(ran).toBe(false);
});

test('a job without an end keeps no other job waiting', async () => {
  const controller = new AbortController();
  const endless = [0, 1].map(() =>
    inSlices(new Task('endless', controller.signal), () => sleep(1).then(() => undefined)),
  );
  expect(await inSlices(new Task('short', undefined), async () => 'done')).toBe('done');
  controller.abort();
  await Promise.all(endless.map((job) => rejection(job, 'ABORT_ERR')));
});
