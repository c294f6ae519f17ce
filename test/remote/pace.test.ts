// How many things run at once, and what becomes of the others when one fails.
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { Pace } from '../../src/remote/pace.js';
import { RootfsError } from '../../src/system/errors.js';
import { Task } from '../../src/system/task.js';
import { Random } from '../fixtures/random.js';
import { rejection } from '../fixtures/rejection.js';

const task = (signal?: AbortSignal) => new Task('asking', signal);

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
