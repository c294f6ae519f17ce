// Ready slots: handed out by a rename, shared between processes, never of a template that has changed.
import { readdir, readFile, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { describeEachFilesystem } from './fixtures/each-filesystem.js';
import { sha256, sha256Of } from './fixtures/files.js';
import { Host } from './fixtures/host.js';
import { MiB, pattern } from './fixtures/images.js';
import { rejection } from './fixtures/rejection.js';

const OLD = pattern(MiB, 1);
const NEW = pattern(MiB, 2);
const WRITABLE = { writable: true } as const;

async function prewarmed(folder: string, count: number): Promise<Host> {
  const host = await Host.in(folder);
  await host.addTemplate('debian', OLD);
  await host.registry.prewarm('debian', { count });
  return host;
}

function readySlots(host: Host): Promise<string[]> {
  return readdir(join(host.clonesDir, '.microvm-rootfs/pool'));
}

describeEachFilesystem((filesystem) => {
  test('a matching clone takes a ready slot, whole and with its stamp', async () => {
    const host = await prewarmed(filesystem.path, 2);
    const clone = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    expect(clone).toMatchObject({ pooled: true, reused: false, sharesTemplateInode: false, sizeBytes: MiB });
    expect(await sha256Of(clone.path)).toBe(sha256(OLD));
    expect(await host.stampOf('vm-1')).toBe(clone.sourceSha256);
  });

  test('an id that sanitising changed gets its own name into the slot', async () => {
    const host = await prewarmed(filesystem.path, 1);
    const clone = await host.registry.cloneForVm('a/b', 'debian', WRITABLE);
    expect(clone.pooled).toBe(true);
    expect(await readFile(host.slot('a_b').rawId, 'utf8')).toBe('a/b');
    await rejection(host.registry.cloneForVm('a_b', 'debian', WRITABLE), 'VM_ID_COLLISION');
  });

  test('another mode, size or durable is not served from the pool', async () => {
    const host = await prewarmed(filesystem.path, 1);
    const mode = await host.registry.cloneForVm('vm-1', 'debian', { ...WRITABLE, mode: 0o640 });
    const durable = await host.registry.cloneForVm('vm-2', 'debian', { ...WRITABLE, durable: true });
    expect([mode.pooled, durable.pooled]).toEqual([false, false]);
    expect(await readySlots(host)).toHaveLength(1);
  });

  test('it is filled again behind the clones, and no more after close', async () => {
    const host = await prewarmed(filesystem.path, 4);
    for (const id of ['vm-1', 'vm-2', 'vm-3']) await host.registry.cloneForVm(id, 'debian', WRITABLE);
    await host.registry.drain();
    expect(await readySlots(host)).toHaveLength(4);
    await host.registry.close();
    await rejection(host.registry.cloneForVm('vm-4', 'debian', WRITABLE), 'CLOSED');
  });

  test('of a template that was replaced none is handed out, and new ones are made', async () => {
    const host = await prewarmed(filesystem.path, 3);
    await host.addTemplate('debian', NEW);
    const clone = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    expect(await sha256Of(clone.path)).toBe(sha256(NEW));
    expect(clone.sourceSha256).toBe(sha256(NEW));
    await host.registry.drain();
    const ready = await readySlots(host);
    // The clone may have taken one of the new ones already, and two of three are enough not to fill again.
    expect(ready.length).toBeGreaterThanOrEqual(2);
    expect(ready.every((name) => name.startsWith(sha256(NEW)))).toBe(true);
  });

  test('the next process uses what is there, but not what a power cut left short', async () => {
    const host = await prewarmed(filesystem.path, 3);
    await host.registry.close();
    const [short] = (await readySlots(host)) as [string];
    await truncate(join(host.clonesDir, '.microvm-rootfs/pool', short, 'rootfs.ext4'), 100);
    const next = host.anotherRegistry();
    await next.prewarm('debian', { count: 3 });
    const ready = await readySlots(host);
    expect(ready).toHaveLength(3);
    expect(ready).not.toContain(short);
    for (const id of ['vm-1', 'vm-2', 'vm-3']) {
      expect((await stat((await next.cloneForVm(id, 'debian', WRITABLE)).path)).size).toBe(MiB);
    }
  });

  test('two registries on one pool: no slot is handed out twice', async () => {
    const host = await prewarmed(filesystem.path, 8);
    const other = host.anotherRegistry();
    await other.prewarm('debian', { count: 8 });
    const ids = Array.from({ length: 24 }, (_, i) => `vm-${i}`);
    const clones = await Promise.all(
      ids.map((id, i) => (i % 2 === 0 ? host.registry : other).cloneForVm(id, 'debian', WRITABLE)),
    );
    const inodes = await Promise.all(clones.map(async ({ path }) => (await stat(path)).ino));
    expect(new Set(inodes).size).toBe(ids.length);
    expect(await host.slotNames()).toEqual([...ids].sort());
  });
});
