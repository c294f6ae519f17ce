// Processes that die in the middle: afterwards a slot is whole or absent, and the same call works.
import { truncate } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { exitOf, printed, runChild, startChild } from '../fixtures/child.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { exists, sha256, sha256Of, writeSparse } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';

const WRITABLE = { writable: true } as const;
const BYTES = pattern(2 * MiB);

const CLONE_AND_RELEASE_FOR_EVER = `
  const registry = new lib.RootfsRegistry(args);
  console.log('started');
  for (let i = 0; ; i++) {
    await registry.cloneForVm('vm-' + (i % 7), 'debian', { writable: true });
    if (i % 3 === 0) await registry.release('vm-' + ((i + 3) % 7));
  }
`;

describeEachFilesystem((filesystem) => {
  test('killed at a random moment, four times: every slot is whole, staging and trash are swept', async () => {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('debian', BYTES);
    const { templateDir, clonesDir } = host;
    for (const delayMs of [5, 17, 31, 53]) {
      const child = startChild(CLONE_AND_RELEASE_FOR_EVER, { templateDir, clonesDir });
      await printed(child, 'started');
      await sleep(delayMs);
      const gone = new Promise((resolve) => child.on('close', resolve));
      child.kill('SIGKILL');
      await gone;
      for (const name of await host.slotNames()) {
        expect(await host.stampOf(name)).toBe(sha256(BYTES));
        expect(await sha256Of(host.slot(name).image)).toBe(sha256(BYTES));
        expect(await host.registry.cloneForVm(name, 'debian', WRITABLE)).toMatchObject({ reused: true });
      }
    }
    expect((await host.registry.recover()).tornSlots).toEqual([]);
    expect(await host.leftovers()).toEqual([]);
  });
});

test('killed in the middle of a long copy: no slot, and the next process clears what it left', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', pattern(128 * MiB));
  await host.registry.stack('debian'); // the child finds the digest on disk or computes it anew: both are fine
  const child = startChild(
    `const registry = new lib.RootfsRegistry(args);
     await registry.stack('debian');
     console.log('copying');
     await registry.cloneForVm('vm-1', 'debian', { writable: true });
     setInterval(() => {}, 1000);`,
    { templateDir: host.templateDir, clonesDir: host.clonesDir },
  );
  await printed(child, 'copying');
  await sleep(30);
  const gone = new Promise((resolve) => child.on('close', resolve));
  child.kill('SIGKILL');
  await gone;
  const clone = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  expect(await sha256Of(clone.path)).toBe(clone.sourceSha256);
  await host.registry.recover();
  expect(await host.leftovers()).toEqual([]);
});

test('a valid stamp beside an image that a power cut left short is not trusted', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', BYTES);
  await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  for (const length of [0, 1, 2 * MiB - 1]) {
    await truncate(host.slot('vm-1').image, length);
    await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), 'SLOT_TORN');
  }
});

test('a deleted image with very many extents is unlinked behind the caller', async () => {
  const host = await Host.in();
  const islands = Object.fromEntries(
    Array.from({ length: 4000 }, (_, i) => [i * 16384, Buffer.alloc(4096, 1)]),
  );
  await host.placeTemplate('debian', (path) => writeSparse(path, 64 * MiB, islands));
  await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  const started = performance.now();
  await host.registry.release('vm-1');
  const releaseMs = performance.now() - started;
  expect(await exists(host.slot('vm-1').path)).toBe(false);
  await host.registry.drain();
  expect(await host.leftovers()).toEqual([]);
  expect(releaseMs).toBeLessThan(1000);
});

test('what a process did not get to empty is emptied by the next', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  const { templateDir, clonesDir } = host;
  const { code } = await runChild(
    `const registry = new lib.RootfsRegistry(args);
     for (let i = 0; i < 200; i++) await registry.cloneForVm('vm-' + i, 'debian', { writable: true });
     for (let i = 0; i < 200; i++) await registry.release('vm-' + i);
     process.exit(0);`,
    { templateDir, clonesDir },
  );
  expect(code).toBe(0);
  await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  await host.registry.drain();
  expect(await host.leftovers()).toEqual([]);
});

test('a process that is told to end while it clones ends cleanly', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', pattern(32 * MiB));
  const child = startChild(CLONE_AND_RELEASE_FOR_EVER, {
    templateDir: host.templateDir,
    clonesDir: host.clonesDir,
  });
  const exit = exitOf(child);
  await printed(child, 'started');
  await sleep(50);
  child.kill('SIGTERM');
  expect((await exit).signal).toBe('SIGTERM');
});
