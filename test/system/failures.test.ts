// Upkeep goes on after a failure, and tells all that failed.
import { expect, test } from 'vitest';
import { RootfsError } from '../../src/index.js';
import { Failures } from '../../src/system/failures.js';
import { Task } from '../../src/system/task.js';

const failing = (code: string) => () => Promise.reject(new RootfsError(code, `${code} here`));

test('work goes on after a failure, and the error names all that failed', async () => {
  const failures = new Failures(new Task('recovering /clones', undefined));
  expect(await failures.attempt('/clones/a', failing('EIO'))).toBeUndefined();
  expect(await failures.attempt('/clones/b', async () => 7)).toBe(7);
  await failures.attempt('/clones/c', failing('EBADMSG'));
  const error = caught(() => failures.throwIfAny());
  expect(error).toMatchObject({ code: 'EIO', path: '/clones/a', cause: { errors: { length: 2 } } });
  expect(error).toHaveProperty('message', expect.stringContaining('2 failures'));
  expect(error).toHaveProperty('message', expect.stringContaining('/clones/a, /clones/c'));
  expect(error).toHaveProperty('cause', expect.any(AggregateError));
});

test('a single failure is thrown as it is', async () => {
  const failures = new Failures(new Task('recovering /clones', undefined));
  failures.throwIfAny();
  await failures.attempt('/clones/a', failing('EIO'));
  expect(caught(() => failures.throwIfAny())).toMatchObject({ code: 'EIO', message: 'EIO here' });
});

test('a bug in a callback ends the work at once', async () => {
  const bug = new TypeError('bug');
  const failures = new Failures(new Task('verifying /clones', undefined));
  await expect(failures.attempt('/clones/a', () => Promise.reject(bug))).rejects.toBe(bug);
});

function caught(work: () => void): unknown {
  try {
    work();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}
