// Node has four threads for fs, dns and us: long work must leave some of them free.
import { stat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { hashFile } from '../../src/index.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';

// Starved, a stat waits for all copies to end; this is far above a bad scheduler's day and far below that.
const LIMIT_MS = 500;

async function slowestStat(
  path: string,
  work: Promise<unknown>,
): Promise<{ slowestMs: number; count: number }> {
  let done = false;
  const finished = work.finally(() => {
    done = true;
  });
  let slowestMs = 0;
  let count = 0;
  while (!done) {
    const started = performance.now();
    await stat(path);
    slowestMs = Math.max(slowestMs, performance.now() - started);
    count++;
    await sleep(1);
  }
  await finished;
  return { slowestMs, count };
}

test('fs.stat beside 64 long copies', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', pattern(4 * MiB));
  await host.registry.stack('debian');
  const copies = Array.from({ length: 64 }, (_, i) =>
    host.registry.cloneForVm(`vm-${i}`, 'debian', { writable: true }),
  );
  const { slowestMs, count } = await slowestStat(host.root, Promise.all(copies));
  expect(count).toBeGreaterThan(5);
  expect(slowestMs).toBeLessThan(LIMIT_MS);
});

test('fs.stat beside 32 long hashes', async () => {
  const host = await Host.in();
  const path = await host.addTemplate('debian', pattern(32 * MiB));
  const hashes = Array.from({ length: 32 }, () => hashFile(path));
  const { slowestMs, count } = await slowestStat(host.root, Promise.all(hashes));
  expect(count).toBeGreaterThan(5);
  expect(slowestMs).toBeLessThan(LIMIT_MS);
});

test('timers beside long work', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', pattern(64 * MiB));
  let longestGapMs = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    longestGapMs = Math.max(longestGapMs, performance.now() - last);
    last = performance.now();
  }, 1);
  await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
  clearInterval(timer);
  expect(longestGapMs).toBeLessThan(LIMIT_MS);
});
