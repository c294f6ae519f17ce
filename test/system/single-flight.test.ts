import { expect, test } from 'vitest';
import { SingleFlight } from '../../src/system/single-flight.js';
import { Task } from '../../src/system/task.js';
import { rejection } from '../fixtures/rejection.js';

/** Work that ends when it is told to, or when it is aborted. */
function controllable() {
  let finish: (value: string) => void = () => {};
  let aborted = false;
  const work = ({ signal }: Task) =>
    new Promise<string>((resolve, reject) => {
      finish = resolve;
      signal?.addEventListener('abort', () => {
        aborted = true;
        reject(new Error('work was aborted'));
      });
    });
  return { work, finish: (value: string) => finish(value), wasAborted: () => aborted };
}

test('callers of one key share one run of the work', async () => {
  const flights = new SingleFlight<string>();
  let runs = 0;
  const work = async () => {
    runs++;
    return 'done';
  };
  const results = await Promise.all(
    ['a', 'a', 'a', 'b'].map((key) => flights.join(key, new Task('work', undefined), work)),
  );
  expect(results).toEqual(['done', 'done', 'done', 'done']);
  expect(runs).toBe(2);
});

test('one caller that aborts leaves the others their result', async () => {
  const flights = new SingleFlight<string>();
  const { work, finish, wasAborted } = controllable();
  const controller = new AbortController();
  const leaving = flights.join('a', new Task('work', controller.signal), work);
  const staying = flights.join('a', new Task('work', undefined), work);
  controller.abort();
  await rejection(leaving, 'ABORT_ERR');
  expect(wasAborted()).toBe(false);
  finish('done');
  expect(await staying).toBe('done');
});

test('when the last caller has left the work is aborted, and the next caller starts anew', async () => {
  const flights = new SingleFlight<string>();
  const first = controllable();
  const controller = new AbortController();
  const leaving = flights.join('a', new Task('work', controller.signal), first.work);
  controller.abort();
  await rejection(leaving, 'ABORT_ERR');
  expect(first.wasAborted()).toBe(true);
  expect(await flights.join('a', new Task('work', undefined), async () => 'second')).toBe('second');
});

test('a caller whose signal was aborted before does not wait', async () => {
  const flights = new SingleFlight<string>();
  const { work, finish } = controllable();
  const staying = flights.join('a', new Task('work', undefined), work);
  await rejection(flights.join('a', new Task('work', AbortSignal.abort()), work), 'ABORT_ERR');
  finish('done');
  expect(await staying).toBe('done');
});

test('a failure reaches all callers and is not remembered', async () => {
  const flights = new SingleFlight<string>();
  const failing = async () => {
    throw new Error('no');
  };
  const both = await Promise.allSettled([
    flights.join('a', new Task('work', undefined), failing),
    flights.join('a', new Task('work', undefined), failing),
  ]);
  expect(both.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
  expect(await flights.join('a', new Task('work', undefined), async () => 'fine')).toBe('fine');
});
