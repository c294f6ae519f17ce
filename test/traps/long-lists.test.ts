// Folders with very many names hold up nobody: they are read and worked through in steps, and the event loop turns
// between them. Each name here takes no system call of its own, which would make the event loop turn as well.
import { linkSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { Host } from '../fixtures/host.js';
import { shareOfLongestTurn } from '../fixtures/turns.js';

// Names of one file: a small file system has not as many inodes.
const COUNT = 60_000;
/** In one piece it is 0.2 to 0.45, in steps 0.05 to 0.09. */
const SMALL = 0.15;

test('a pool of many ready slots', { timeout: 120_000 }, async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  const { registry, clonesDir } = host;
  await registry.prewarm('debian', { count: 1 });
  await registry.drain();
  const pool = join(clonesDir, '.microvm-rootfs/pool');
  const ready = readdirSync(pool).find((name) => !name.endsWith('.json')) as string;
  // Of another size, which nobody asks for.
  const another = ready.replace(/^([0-9a-f]{64})-\d+/, '$1-12345');
  const file = join(host.root, 'file');
  writeFileSync(file, '');
  for (let i = 0; i < COUNT; i++) linkSync(file, join(pool, `${another}-${i}`));

  expect(await registry.readySlots()).toMatchObject([{ count: 1 }, { sizeBytes: 12_345, count: COUNT }]);
  expect((await registry.recover()).pooledRemoved).toBe(0);
  expect(await shareOfLongestTurn(() => registry.readySlots())).toBeLessThan(SMALL);
  expect(await shareOfLongestTurn(() => registry.recover())).toBeLessThan(SMALL);
  expect(await shareOfLongestTurn(() => registry.prewarm('debian', { count: 1 }))).toBeLessThan(SMALL);
});

test('a folder of snapshots with many others', { timeout: 120_000 }, async () => {
  const host = await Host.in();
  const snapshotsDir = join(host.root, 'snapshots');
  mkdirSync(snapshotsDir);
  const file = join(host.root, 'file');
  writeFileSync(file, '');
  for (let i = 0; i < COUNT; i++) linkSync(file, join(snapshotsDir, `.not-a-snapshot-${i}`));
  const registry = host.anotherRegistry({ snapshotsDir });
  const list = async () => {
    for await (const snapshot of registry.snapshots()) expect(snapshot).toBeUndefined();
  };
  // Nothing but the listing: in one piece 0.52 to 0.61, in steps 0.17 to 0.2.
  expect(await shareOfLongestTurn(list)).toBeLessThan(0.35);
});
