// Two processes pull one artifact at once: one of them works on it, and if it is killed the other goes on.
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { lacks } from '../fixtures/tools.js';
import { Artifacts } from './artifacts.js';
import { FULL, SEED } from './campaign.js';
import { injectorFor } from './injectors.js';
import type { Operation } from './operations.js';
import { partialPulls } from './partial-pulls.js';
import { Performer } from './performer.js';
import { distinctStates } from './points.js';
import { sample } from './sample.js';
import { Masters, type Site } from './site.js';
import { TRANSFERS } from './transfers.js';
import { afterwards, dryRun, type Ground, newSite } from './visits.js';

const FEW = 3;
const operation = TRANSFERS.find(({ name }) => name === 'pulling a stack') as Operation;

test('of two processes that pull one stack, one is killed: the other goes on', {
  timeout: 600_000,
}, async ({ skip }) => {
  const ground = await groundOr(skip);
  const performer = Performer.start();
  const points = await dryRun(ground, performer, ['pool']);
  await performer.kill();
  const first = points.findIndex(({ line }) => line.includes('/pulls/sha256-'));
  const held = distinctStates(points.slice(first + 1));
  for (const point of FULL ? held : sample(held, FEW, SEED)) {
    const { site, pullers } = await twoPullers(ground);
    const [one, other] = pullers;
    const injector = await injectorFor('pool', site, { ...point, what: 'signal=SIGKILL' });
    const trace = await injector.arm(await one.prepare(site.config, []));
    await other.prepare(site.config, []);
    const call = site.placed(operation.call);
    const killed = one.perform(call);
    while ((await partialPulls(site)).length === 0) await sleep(1);
    const performed = await other.perform(call);
    const where = point.line;
    expect(performed?.outcome, where).toMatchObject({ value: { sha256: site.digestOf('cargo') } });
    await killed;
    await trace.end();
    await Promise.all(pullers.map((each) => each.kill()));
    expect(await afterwards(site, operation, false), where).toEqual([]);
    await site.remove();
  }
});

test('two processes that pull one stack both have it, and one of them has fetched it', {
  timeout: 60_000,
}, async ({ skip }) => {
  const ground = await groundOr(skip);
  const { site, pullers } = await twoPullers(ground);
  for (const each of pullers) await each.prepare(site.config, []);
  const pulled = await Promise.all(pullers.map((each) => each.perform(site.placed(operation.call))));
  const results = pulled.map((performed) => performed?.outcome.value as { unchanged: boolean });
  expect(results.map(({ unchanged }) => unchanged).sort()).toEqual([false, true]);
  await Promise.all(pullers.map((each) => each.close()));
  expect(await afterwards(site, operation, false)).toEqual([]);
});

async function groundOr(skip: (why: string) => void): Promise<Ground> {
  const { path, missing = lacks('strace', 'mke2fs', 'e2fsck', 'docker-registry', 'zstd') } =
    filesystemNamed('XFS');
  if (missing !== undefined) skip(missing);
  const folder = await mkdtemp(join(path, 'kills-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const masters = await Masters.make(folder);
  return { folder, masters, artifacts: await Artifacts.make(folder, masters), operation };
}

async function twoPullers(ground: Ground): Promise<{ site: Site; pullers: [Performer, Performer] }> {
  return { site: await newSite(ground), pullers: [Performer.start(), Performer.start()] };
}
