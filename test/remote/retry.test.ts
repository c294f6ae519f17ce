// Trying again: how often, and after which pause.
import { describe, expect, test } from 'vitest';
import { retryAfterMs, Transient, triesOf, waitToRetry, withRetries } from '../../src/remote/retry.js';
import { RootfsError } from '../../src/system/errors.js';
import { Task } from '../../src/system/task.js';
import { rejection } from '../fixtures/rejection.js';

const failure = new RootfsError('REGISTRY_FAILED', 'the registry is busy');
const task = (signal?: AbortSignal) => new Task('asking', signal);

describe('what fails for a while', () => {
  test.each([
    [undefined, 6],
    [3, 3],
    [1, 1],
  ])(
    'is tried again, with %s as its limit %i times in all, and then tells what it was',
    async (limit, tries) => {
      let tried = 0;
      let busy = 0;
      const attempt = async () => {
        tried++;
        throw new Transient(failure, tried === 1, 0, limit);
      };
      expect(await rejection(withRetries(task(), attempt, { onBusy: () => busy++ }), 'REGISTRY_FAILED')).toBe(
        failure,
      );
      expect([tried, busy]).toEqual([tries, 1]);
    },
  );

  test('is tried twice at a mirror, busy or not', () => {
    for (const isBusy of [true, false]) {
      expect(triesOf(new Transient(failure, isBusy), true)).toBe(2);
      expect(triesOf(new Transient(failure, isBusy), false)).toBe(6);
    }
  });

  test('is forgotten once it works, and any other failure is one at once', async () => {
    let tried = 0;
    const attempt = async () => {
      if (++tried < 4) throw new Transient(failure, false, 0);
      return 'done';
    };
    expect(await withRetries(task(), attempt)).toBe('done');
    expect(tried).toBe(4);
    tried = 0;
    const broken = async () => {
      tried++;
      throw new TypeError('a fault of ours');
    };
    await expect(withRetries(task(), broken)).rejects.toThrow('a fault of ours');
    expect(tried).toBe(1);
  });

  test('is left alone when the caller gives up during the pause', async () => {
    const controller = new AbortController();
    const attempt = async () => {
      setTimeout(() => controller.abort(), 10);
      throw new Transient(failure, true, 60_000);
    };
    const started = performance.now();
    await rejection(withRetries(task(controller.signal), attempt), 'ABORT_ERR');
    expect(performance.now() - started).toBeLessThan(5000);
  });
});

test('a pause doubles with each try, is partly random, and is longer if the registry asks for that', async () => {
  const lasted = async (tries: number, retryAfter?: number) => {
    const started = performance.now();
    await waitToRetry(task(), new Transient(failure, true, retryAfter), tries);
    return performance.now() - started;
  };
  const [first, second, asked, none] = await Promise.all([
    lasted(1),
    lasted(2),
    lasted(1, 1000),
    lasted(1, 0),
  ]);
  expect(first).toBeGreaterThanOrEqual(249);
  expect(first).toBeLessThan(5000);
  expect(second).toBeGreaterThanOrEqual(499);
  expect(asked).toBeGreaterThanOrEqual(999);
  // 0 s, and a date that is past.
  expect(none).toBeGreaterThanOrEqual(249);
});

test.each([
  ['0', 0],
  ['120', 120_000],
  ['99999999999999999999', 1e23],
  ['Wed, 21 Oct 2015 07:28:10 GMT', 10_000],
  ['Wed, 21 Oct 2015 07:27:00 GMT', 0],
  ['soon', undefined],
  ['', undefined],
  ['-5', 0],
])('Retry-After: %s', (value, ms) => {
  expect(retryAfterMs(value, Date.parse('Wed, 21 Oct 2015 07:28:00 GMT'))).toBe(ms);
  expect(retryAfterMs(undefined)).toBeUndefined();
});
