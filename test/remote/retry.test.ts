// Trying again: how often, after which pause, and how many things at once.
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { Pace, pause, persist, retryAfterMs, Transient, triesOf } from '../../src/remote/retry.js';
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

test('a pause doubles with each try, is partly random, and is longer if the registry asks for that', async () => {
  const lasted = async (tries: number, retryAfter?: number) => {
    const started = performance.now();
    await pause(task(), new Transient(failure, true, retryAfter), tries);
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

describe('many things', () => {
  const counting = (length: number) => Array.from({ length }, (_, i) => i);

  test('run in order, as many at once as allowed, and one at least after many bursts', async () => {
    const random = new Random(121);
    for (const concurrency of [1, 2, 5, 64]) {
      const pace = new Pace(concurrency);
      let running = 0;
      const started: number[] = [];
      await pace.forEach(task(), counting(60), async (_, item) => {
        running++;
        started.push(item);
        expect(running).toBeLessThanOrEqual(concurrency);
        await sleep(random.below(4));
        if (item === 20) for (let k = 0; k < 500; k++) pace.slowDown();
        running--;
      });
      expect(started).toEqual(counting(60));
      expect(running).toBe(0);
    }
  });

  /** How many ran when each began. `turnedAway` decides which are told that the registry is busy. */
  async function runningAt(concurrency: number, count: number, turnedAway: (item: number) => boolean) {
    const pace = new Pace(concurrency);
    let running = 0;
    const seen: number[] = [];
    await pace.forEach(task(), counting(count), async (_, item) => {
      seen.push(++running);
      await sleep(1);
      if (turnedAway(item)) pace.slowDown();
      running--;
    });
    return seen;
  }

  test('are half as many after a burst of refusals, however many it has, and then more again', async () => {
    const seen = await runningAt(8, 80, (item) => item < 8);
    // The eight end well after all, which makes room for a fifth.
    expect(Math.max(...seen.slice(8, 12))).toBeLessThanOrEqual(5);
    expect(seen.slice(8, 16).some((running) => running >= 4)).toBe(true);
    expect(seen.slice(-8)).toContain(8);
  });

  test('are half as many again after a second burst', async () => {
    const seen = await runningAt(8, 14, (item) => item < 12);
    expect(seen.at(-1)).toBeLessThanOrEqual(3);
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
    const all = new Pace(3).forEach(task(), counting(50), work);
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
