import { expect, test } from 'vitest';
import { Task } from '../../src/system/task.js';
import { Turns } from '../../src/system/turns.js';

test('while slices and whole jobs wait, they have every second turn each', async () => {
  const turns = new Turns(1);
  const order: string[] = [];
  let free = () => {};
  const busy = turns.run(
    new Task('busy', undefined),
    () =>
      new Promise<void>((resolve) => {
        free = resolve;
      }),
  );
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
