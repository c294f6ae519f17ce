// Ready slots of a snapshot: handed out by a rename while the snapshot is as it was verified, and never after that.
import { appendFile, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test, vi } from 'vitest';
import { Pool } from '../../src/clone/pool.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';

/** A host with the snapshot `paused` of a disk and a memory file, and ready slots of it. */
async function prewarmed(folder: string | undefined, count: number): Promise<Host> {
  const host = await Host.in(folder);
  await host.addTemplate('debian', pattern(MiB, 1));
  await host.registry.cloneForVm('origin', 'debian', { writable: true });
  await take(host, 2);
  await host.registry.prewarmSnapshot('paused', { count });
  return host;
}

/** Takes the snapshot of a disk whose guest has written `seed` to it. */
async function take(host: Host, seed: number): Promise<void> {
  await writeFile(host.slot('origin').image, pattern(64, seed), { flag: 'r+' });
  const memory = join(host.root, 'memory');
  await writeFile(memory, pattern(MiB, seed));
  await host.registry.snapshotSlot('origin', 'paused', { with: [memory] });
}

function snapshotFolder(host: Host): string {
  return join(host.clonesDir, '.microvm-rootfs/snapshots/paused');
}

async function readySlots(host: Host): Promise<string[]> {
  const names = await readdir(join(host.clonesDir, '.microvm-rootfs/pool'));
  return names.filter((name) => !name.endsWith('.json'));
}

describeEachFilesystem((filesystem) => {
  test('a restore takes a ready slot, which holds what any other restore does', async () => {
    const host = await prewarmed(filesystem.path, 1);
    const ready = await host.registry.restoreSnapshot('paused', 'a/b');
    const made = await host.registry.restoreSnapshot('paused', 'vm-2', { durable: true });
    const differs = { vmId: 'a_b', path: host.slot('a_b').image, attempts: [], pooled: true };
    expect([ready, made.pooled]).toEqual([{ ...made, ...differs }, false]);
    expect(await sha256Of(ready.path)).toBe(await sha256Of(host.slot('origin').image));
    expect(await host.stampOf('a_b')).toBe(await host.stampOf('origin'));
    expect(await readFile(host.slot('a_b').rawId, 'utf8')).toBe('a/b');
    await rejection(host.registry.restoreSnapshot('paused', 'vm-2'), 'SLOT_EXISTS');
  });

  test('of a snapshot that was taken again none is handed out, and new ones are made', async () => {
    const host = await prewarmed(filesystem.path, 2);
    await host.registry.removeSnapshot('paused');
    await host.registry.drain();
    expect(await readySlots(host)).toEqual([]);
    await take(host, 3);
    const clone = await host.registry.restoreSnapshot('paused', 'vm-1');
    expect(await sha256Of(clone.path)).toBe(await sha256Of(host.slot('origin').image));
    await host.registry.drain();
    expect(await host.registry.restoreSnapshot('paused', 'vm-2')).toMatchObject({ pooled: true });
  });

  test('another process replaces the snapshot: the next restore is of the new one', async () => {
    const host = await prewarmed(filesystem.path, 2);
    await rename(snapshotFolder(host), join(host.root, 'away'));
    await take(host, 3);
    const clone = await host.registry.restoreSnapshot('paused', 'vm-1');
    expect(clone.pooled).toBe(false);
    expect(await sha256Of(clone.path)).toBe(await sha256Of(host.slot('origin').image));
    await host.registry.drain();
    expect(await readySlots(host)).toHaveLength(2);
    expect(await host.registry.restoreSnapshot('paused', 'vm-2')).toMatchObject({ pooled: true });
  });

  test('another process removes the snapshot: the next restore tells, and filling the pool does not', async () => {
    const host = await prewarmed(filesystem.path, 2);
    expect((await host.registry.restoreSnapshot('paused', 'vm-1')).pooled).toBe(true);
    await host.registry.drain();
    await host.anotherRegistry().removeSnapshot('paused');
    const warnings: unknown[] = [];
    const warn = (warning: unknown) => warnings.push(warning);
    process.on('warning', warn);
    onTestFinished(() => {
      process.off('warning', warn);
    });
    await rejection(host.registry.restoreSnapshot('paused', 'vm-2'), 'SNAPSHOT_NOT_FOUND');
    await host.registry.drain();
    await sleep(10);
    expect(warnings).toEqual([]);
  });

  test('another process removes the snapshot while its ready slots are made: they are told so', async () => {
    const host = await prewarmed(filesystem.path, 0);
    const other = host.anotherRegistry();
    const remove = vi.spyOn(Pool.prototype, 'keep').mockImplementationOnce(async function (
      this: Pool,
      ...args
    ) {
      await other.removeSnapshot('paused');
      return this.keep(...args);
    });
    onTestFinished(() => remove.mockRestore());
    await rejection(host.registry.prewarmSnapshot('paused', { count: 1 }), 'SNAPSHOT_NOT_FOUND');
  });
});

test('with a memory file that has changed no ready slot is handed out', async () => {
  const host = await prewarmed(undefined, 1);
  await rm(join(snapshotFolder(host), 'memory'));
  await writeFile(join(snapshotFolder(host), 'memory'), pattern(MiB, 9));
  await rejection(host.registry.restoreSnapshot('paused', 'vm-1'), 'SNAPSHOT_CORRUPT');
  expect(await host.slotNames()).toEqual(['origin']);
});

test('the next process finds them, also of a disk that is longer than its stamp, and lists them', async () => {
  const host = await Host.in();
  await host.addExt4Template('debian', 16 * MiB);
  await host.registry.cloneForVmWithSize('origin', 'debian', 32 * MiB);
  await take(host, 2);
  // As earlier versions recorded a disk that its VMM had made longer.
  const manifest = join(snapshotFolder(host), 'SHA256SUMS');
  const text = await readFile(manifest, 'utf8');
  await writeFile(manifest, text.replace(`"sizeStamp":${32 * MiB}`, `"sizeStamp":${24 * MiB}`));
  await host.registry.prewarm('debian', { count: 1 });
  await host.registry.prewarmSnapshot('paused', { count: 2, mode: 0o640 });
  const names = await readySlots(host);
  const next = host.anotherRegistry();
  await next.prewarmSnapshot('paused', { count: 2, mode: 0o640 });
  expect(await readySlots(host)).toEqual(names);
  expect(await next.readySlots()).toMatchObject([
    { stack: 'debian', sizeBytes: 16 * MiB, count: 1 },
    { stack: 'debian', snapshot: 'paused', sizeBytes: 32 * MiB, mode: 0o640, count: 2 },
  ]);
  expect((await next.restoreSnapshot('paused', 'vm-1')).pooled).toBe(false);
  const restored = await next.restoreSnapshot('paused', 'vm-2', { mode: 0o640 });
  expect(restored).toMatchObject({ pooled: true, sizeBytes: 32 * MiB });
  expect(await readFile(host.slot('vm-2').sizeStamp, 'utf8')).toBe(`${24 * MiB}`);
});

test('recover() keeps those of a snapshot that is there, and removes them when it is gone', async () => {
  const host = await prewarmed(undefined, 2);
  expect((await host.anotherRegistry().recover()).pooledRemoved).toBe(0);
  await rm(snapshotFolder(host), { recursive: true });
  // Others show that the folder of snapshots is not merely away.
  await host.registry.snapshotSlot('origin', 'another');
  expect((await host.anotherRegistry().recover()).pooledRemoved).toBe(2);
  expect(await readySlots(host)).toEqual([]);
});

test('without a count it is only verified; with 0 they are discarded, and those of the stack stay', async () => {
  const host = await prewarmed(undefined, 2);
  await host.registry.prewarm('debian', { count: 1 });
  await host.registry.prewarmSnapshot('paused');
  expect(await readySlots(host)).toHaveLength(3);
  await host.anotherRegistry().prewarmSnapshot('paused', { count: 0 });
  expect(await readySlots(host)).toHaveLength(1);
  expect(await host.registry.restoreSnapshot('paused', 'vm-1')).toMatchObject({ pooled: false });
  await rejection(host.registry.prewarmSnapshot('none', { count: 1 }), 'SNAPSHOT_NOT_FOUND');
  await appendFile(join(snapshotFolder(host), 'memory'), 'more');
  await rejection(host.anotherRegistry().prewarmSnapshot('paused'), 'SNAPSHOT_CORRUPT');
});
