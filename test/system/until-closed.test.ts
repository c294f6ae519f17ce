import { expect, test } from 'vitest';
import { abortError } from '../../src/system/errors.js';
import { onAbort } from '../../src/system/on-abort.js';
import { Task } from '../../src/system/task.js';
import { UntilClosed } from '../../src/system/until-closed.js';
import { rejection } from '../fixtures/rejection.js';

/** Work that notices an abort, and then takes until `letGo` is called. */
function slowToEnd() {
  let letGo: () => void = () => {};
  const work = (task: Task) =>
    new Promise<never>((_, reject) => {
      onAbort(task.signal, () => {
        letGo = () => reject(abortError(task.what, task.signal as AbortSignal));
      });
      if (task.signal?.aborted) reject(abortError(task.what, task.signal));
    });
  return { work, letGo: () => letGo() };
}

test('close() ends what runs, and resolves when that has let go of its files', async () => {
  const reads = new UntilClosed();
  const { work, letGo } = slowToEnd();
  const read = rejection(reads.run(new Task('reading', undefined), work), 'CLOSED');
  let isClosed = false;
  const closed = reads.close().then(() => {
    isClosed = true;
  });
  await new Promise((resolve) => setTimeout(resolve, 10));
  expect(isClosed).toBe(false);
  letGo();
  await Promise.all([read, closed]);
});

test('what comes after close() is ended before it begins', async () => {
  const reads = new UntilClosed();
  await reads.close();
  await rejection(reads.run(new Task('reading', undefined), slowToEnd().work), 'CLOSED');
});

test('an abort of the caller is told as one, with its reason', async () => {
  const reads = new UntilClosed();
  const controller = new AbortController();
  const { work, letGo } = slowToEnd();
  const read = rejection(reads.run(new Task('reading', controller.signal), work), 'ABORT_ERR');
  controller.abort('enough');
  letGo();
  expect((await read).cause).toBe('enough');
});

test('a result and a failure are those of the work', async () => {
  const reads = new UntilClosed();
  const task = new Task('reading', undefined);
  expect(await reads.run(task, async () => 'read')).toBe('read');
  await expect(
    reads.run(task, async () => {
      throw new Error('no');
    }),
  ).rejects.toThrow('no');
  await reads.close();
});
