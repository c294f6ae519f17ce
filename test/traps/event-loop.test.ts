// Node has four threads for fs, dns and us: long work must leave some of them free.
import { stat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test, vi } from 'vitest';
import { hashFile } from '../../src/index.js';
import { artifactOf, digestOf, formatArtifact, PACK_TYPE, parseManifest } from '../../src/remote/artifact.js';
import { ChunkList, ChunkListBuilder } from '../../src/remote/chunk-list.js';
import { ChunkSet } from '../../src/remote/chunk-set.js';
import { DigestIndex } from '../../src/remote/digest-index.js';
import { packEnds } from '../../src/remote/packs.js';
import { dataChunk } from '../fixtures/chunk-lists.js';
import { Host } from '../fixtures/host.js';
import { KiB, MiB, pattern } from '../fixtures/images.js';

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

/** How often the event loop goes on during `work`, if time passes so quickly that each pause is due. */
async function turnsOf(work: () => Promise<unknown>): Promise<number> {
  let now = performance.now();
  const clock = vi.spyOn(performance, 'now').mockImplementation(() => {
    now += 10;
    return now;
  });
  let turns = 0;
  const count = () => {
    turns++;
    counting = setImmediate(count);
  };
  let counting = setImmediate(count);
  try {
    await work();
    return turns;
  } finally {
    clearImmediate(counting);
    clock.mockRestore();
  }
}

test('lists of many chunks and many layers are gone through in slices', async () => {
  const COUNT = 50_000;
  const builder = new ChunkListBuilder();
  for (let i = 0; i < COUNT; i++) builder.add(dataChunk(128 * KiB, i));
  const list = await builder.finish();
  const frameBytes = new Uint32Array(COUNT).fill(1);
  const chunks = await ChunkSet.ofData(list);
  const layers = Array.from({ length: 15_000 }, (_, i) => ({
    mediaType: PACK_TYPE,
    digest: digestOf(Buffer.from(`${i}`)),
    size: 1,
    annotations: {},
  }));
  const { bytes } = await formatArtifact('a/b', layers, {});
  const value = await parseManifest(bytes, 'it');
  const works: Record<string, () => Promise<unknown>> = {
    finish: () => builder.finish(),
    parse: () => ChunkList.parse(list.bytes),
    withFrames: () => list.withFrames([COUNT], frameBytes),
    packEnds: () => packEnds(list),
    ofData: () => ChunkSet.ofData(list),
    index: () => DigestIndex.of(chunks),
    parseManifest: () => parseManifest(bytes, 'it'),
    artifactOf: () => artifactOf(value),
    formatArtifact: () => formatArtifact('a/b', layers, {}),
  };
  for (const [name, work] of Object.entries(works)) expect(await turnsOf(work), name).toBeGreaterThan(10);
});
