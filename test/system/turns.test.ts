import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { Task } from '../../src/system/task.js';
import { Turns } from '../../src/system/turns.js';

/** A job that has the turn until it is freed. */
function occupied(turns: Turns) {
  let free = () => {};
  const busy = turns.run(
    new Task('busy', undefined),
    () =>
      new Promise<void>((resolve) => {
        free = resolve;
      }),
  );
  return { busy, free: () => free() };
}

/** `count` jobs that wait behind one that runs until it is freed. */
function crowd(count: number, signal?: AbortSignal) {
  const turns = new Turns(1);
  const { busy, free } = occupied(turns);
  const tally = { ran: 0, rejected: 0 };
  const task = new Task('job', signal);
  const job = async () => void tally.ran++;
  const done = Array.from({ length: count }, () =>
    turns.run(task, job).catch(({ code }) => {
      if (code === 'ABORT_ERR') tally.rejected++;
    }),
  );
  return { turns, tally, free, all: Promise.all([busy, ...done]) };
}

test('while slices and whole jobs wait, they have every second turn each', async () => {
  const turns = new Turns(1);
  const order: string[] = [];
  const { busy, free } = occupied(turns);
  const add = (name: string, where: 'ahead' | 'behind') =>
    turns.run(
      new Task(name, undefined),
      async () => {
        order.push(name);
      },
      where,
    );
  const waiting = [
    ...['slice 1', 'slice 2', 'slice 3', 'slice 4'].map((name) => add(name, 'behind')),
    ...['job 1', 'job 2'].map((name) => add(name, 'ahead')),
  ];
  free();
  await Promise.all([busy, ...waiting]);
  expect(order).toEqual(['job 1', 'slice 1', 'job 2', 'slice 2', 'slice 3', 'slice 4']);
});

test('no more jobs run at once than were allowed, in the order in which they came, also after a failure', async () => {
  const turns = new Turns(2);
  const task = new Task('job', undefined);
  const started: number[] = [];
  let running = 0;
  let most = 0;
  const job = (i: number) =>
    turns.run(task, async () => {
      started.push(i);
      most = Math.max(most, ++running);
      await nextTurn();
      running--;
      if (i === 1) throw new Error('failed');
      return i;
    });
  const settled = await Promise.allSettled([0, 1, 2, 3, 4, 5].map(job));
  expect(settled.map(({ status }) => status === 'fulfilled')).toEqual([true, false, true, true, true, true]);
  expect(started).toEqual([0, 1, 2, 3, 4, 5]);
  expect(most).toBe(2);
  expect(await turns.run(task, async () => 'free again')).toBe('free again');
});

test('an abort of all that wait tells a few in each turn of the event loop, and none of them runs', async () => {
  const controller = new AbortController();
  const { turns, tally, free, all } = crowd(1000, controller.signal);
  const other = turns.run(new Task('other', undefined), async () => 'ran', 'behind');
  controller.abort();
  await nextTurn();
  expect(tally.rejected).toBeGreaterThan(0);
  expect(tally.rejected).toBeLessThan(500);
  free();
  expect(await other).toBe('ran');
  await all;
  expect(tally).toEqual({ ran: 0, rejected: 1000 });
});

test('a job that ends its turn before it is done lets one other run, and only one', async () => {
  const turns = new Turns(1);
  const task = new Task('job', undefined);
  let finish = () => {};
  const long = turns.run(task, async (endTurn) => {
    endTurn();
    await new Promise<void>((resolve) => {
      finish = resolve;
    });
  });
  const next = occupied(turns);
  const last = turns.run(task, async () => 'ran');
  finish();
  await long;
  expect(await Promise.race([last, nextTurn('waits')])).toBe('waits');
  next.free();
  expect(await last).toBe('ran');
  await next.busy;
});
