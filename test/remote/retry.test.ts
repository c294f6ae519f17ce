// Trying again: how often, after which pause, and how many things at once.
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { Pace, pause, persist, retryAfterMs, Transient } from '../../src/remote/retry.js';
import { RootfsError } from '../../src/system/errors.js';
import { Task } from '../../src/system/task.js';
import { Random } from '../fixtures/random.js';
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
      expect(await rejection(persist(task(), attempt, { onBusy: () => busy++ }), 'REGISTRY_FAILED')).toBe(
        failure,
      );
      expect([tried, busy]).toEqual([tries, 1]);
    },
  );

  test('is forgotten once it works, and any other failure is one at once', async () => {
    let tried = 0;
    const attempt = async () => {
      if (++tried < 4) throw new Transient(failure, false, 0);
      return 'done';
    };
    expect(await persist(task(), attempt)).toBe('done');
    expect(tried).toBe(4);
    tried = 0;
    const broken = async () => {
      tried++;
      throw new TypeError('a fault of ours');
    };
    await expect(persist(task(), broken)).rejects.toThrow('a fault of ours');
    expect(tried).toBe(1);
  });

  test('is left alone when the caller gives up during the pause', async () => {
    const controller = new AbortController();
    const attempt = async () => {
      setTimeout(() => controller.abort(), 10);
      throw new Transient(failure, true, 60_000);
    };
    const started = performance.now();
    await rejection(persist(task(controller.signal), attempt), 'ABORT_ERR');
    expect(performance.now() - started).toBeLessThan(5000);
  });
});

test('a pause doubles with each try, is partly random, and is as long as the registry asks for', async () => {
  const lasted = async (tries: number, retryAfter?: number) => {
    const started = performance.now();
    await pause(task(), new Transient(failure, false, retryAfter), tries);
    return performance.now() - started;
  };
  const [first, second, asked] = await Promise.all([lasted(1), lasted(2), lasted(6, 20)]);
  expect(first).toBeGreaterThanOrEqual(249);
  expect(first).toBeLessThan(5000);
  expect(second).toBeGreaterThanOrEqual(499);
  expect(asked).toBeLessThan(5000);
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

describe('many things', () => {
  test('run in order, as many at once as allowed and fewer after each slowing down, but one at least', async () => {
    const random = new Random(121);
    for (const concurrency of [1, 2, 5, 64]) {
      const pace = new Pace(concurrency);
      let running = 0;
      let limit = concurrency;
      const started: number[] = [];
      await pace.forEach(
        task(),
        Array.from({ length: 60 }, (_, i) => i),
        async (_, item) => {
          running++;
          started.push(item);
          expect(running).toBeLessThanOrEqual(Math.max(limit, item < 30 ? concurrency : 1));
          await sleep(random.below(4));
          if (item === 20) for (let k = 0; k < 20; k++) pace.slowDown();
          if (item === 20) limit = 1;
          running--;
        },
      );
      expect(started).toEqual(Array.from({ length: 60 }, (_, i) => i));
      expect(running).toBe(0);
    }
  });

  test('are no more at once than the caller allows, but one at least', async () => {
    const most = async (atMost: number) => {
      let running = 0;
      let seen = 0;
      const work = async () => {
        seen = Math.max(seen, ++running);
        await sleep(1);
        running--;
      };
      await new Pace(4).forEach(task(), Array(20).fill(0), work, atMost);
      return seen;
    };
    expect([await most(100), await most(2), await most(0), await most(-5)]).toEqual([4, 2, 1, 1]);
  });

  test('share their requests: so many at once, fewer after a slowing down; a failure makes room', async () => {
    const pace = new Pace(4);
    let running = 0;
    const seen: number[] = [];
    const request = (item: number) =>
      pace.request(async () => {
        seen.push(++running);
        await sleep(1);
        running--;
        if (item === 9) pace.slowDown();
        if (item % 5 === 0) throw new RootfsError('REGISTRY_FAILED', 'this one');
      });
    const settled = await Promise.allSettled(Array.from({ length: 40 }, (_, i) => request(i)));
    expect(settled.filter(({ status }) => status === 'rejected')).toHaveLength(8);
    expect(Math.max(...seen.slice(0, 10))).toBe(4);
    expect(Math.max(...seen.slice(-20))).toBe(2);
  });

  test('end with the first failure: the others are aborted and waited for, and no further one begins', async () => {
    const begun: number[] = [];
    const ended: number[] = [];
    const work = async ({ signal }: Task, item: number) => {
      begun.push(item);
      if (item === 1) throw new RootfsError('IMAGE_INVALID', 'the first');
      await sleep(10_000, undefined, { signal: signal as AbortSignal }).catch(() => {});
      await sleep(5);
      ended.push(item);
      throw new RootfsError('ABORT_ERR', 'by the first');
    };
    const all = new Pace(3).forEach(
      task(),
      Array.from({ length: 50 }, (_, i) => i),
      work,
    );
    expect((await rejection(all, 'IMAGE_INVALID')).message).toBe('the first');
    expect(begun.length).toBeLessThanOrEqual(4);
    expect(ended.sort()).toEqual(begun.filter((item) => item !== 1).sort());
  });

  test('end when the caller gives up, and that is what is told', async () => {
    const controller = new AbortController();
    const all = new Pace(2).forEach(task(controller.signal), Array(50).fill(0), async ({ signal }) => {
      controller.abort();
      expect(signal?.aborted).toBe(true);
      throw new RootfsError('REGISTRY_FAILED', 'a consequence');
    });
    await rejection(all, 'ABORT_ERR');
  });

  test('that come from a list which fails half-way are ended like any others', async () => {
    function* items() {
      yield 1;
      yield 2;
      throw new RootfsError('ARTIFACT_INVALID', 'the list is damaged');
    }
    const ended: number[] = [];
    const all = new Pace(4).forEach(task(), items(), async ({ signal }, item) => {
      await sleep(10_000, undefined, { signal: signal as AbortSignal }).catch(() => {});
      ended.push(item);
    });
    await rejection(all, 'ARTIFACT_INVALID');
    expect(ended).toEqual([1, 2]);
  });

  test('are none at all', async () => {
    await new Pace(1).forEach(task(), [], async () => expect.fail('there is nothing to do'));
  });
});
