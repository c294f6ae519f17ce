// A restore is a clone: what was verified once is not read again while the files are the same.
import { execFileSync } from 'node:child_process';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { chmod, link, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { describeEachFilesystem, filesystemNamed } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { KiB, MiB, pattern } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';

const WRITABLE = { writable: true } as const;

describeEachFilesystem(
  ({ path }) => {
    let host: Host;
    let hashed = 0;
    const count = () => {
      hashed++;
    };

    beforeEach(async () => {
      host = await Host.in(path);
      await host.addTemplate('debian', pattern(MiB));
      await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
      const memory = join(host.clonesDir, '../memory');
      await writeFile(memory, pattern(64 * KiB));
      await host.registry.snapshotSlot('vm-1', 'snap', { with: [memory] });
      // A file that has just changed is not believed for good.
      await sleep(50);
      hashed = 0;
      subscribe('tracing:microvm-rootfs:hash:start', count);
    });
    afterEach(() => {
      unsubscribe('tracing:microvm-rootfs:hash:start', count);
    });

    const kept = (file: string) => join(host.clonesDir, '.microvm-rootfs/snapshots/snap', file);

    test('the first restore reads the files, later ones and those of the next process do not', async () => {
      await host.registry.restoreSnapshot('snap', 'vm-2');
      expect(hashed).toBe(2);
      await host.registry.restoreSnapshot('snap', 'vm-3');
      const { path } = await host.anotherRegistry().restoreSnapshot('snap', 'vm-4');
      expect(hashed).toBe(2);
      expect((await readFile(path)).equals(pattern(MiB))).toBe(true);
    });

    test('verifySnapshot reads everything again', async () => {
      await host.registry.restoreSnapshot('snap', 'vm-2');
      await host.registry.verifySnapshot('snap');
      expect(hashed).toBe(4);
    });

    test.each(['rootfs.ext4', 'memory'])('%s was changed after a restore: refused', async (file) => {
      await host.registry.restoreSnapshot('snap', 'vm-2');
      const bytes = await readFile(kept(file));
      bytes[100] = (bytes[100] as number) ^ 1;
      await chmod(kept(file), 0o600);
      await writeFile(kept(file), bytes);
      for (const registry of [host.registry, host.anotherRegistry()])
        await rejection(registry.restoreSnapshot('snap', 'vm-3'), 'SNAPSHOT_CORRUPT');
    });

    test('another file with the same bytes is read again', async () => {
      await host.registry.restoreSnapshot('snap', 'vm-2');
      await writeFile(kept('.new'), await readFile(kept('rootfs.ext4')));
      await rename(kept('.new'), kept('rootfs.ext4'));
      await host.registry.restoreSnapshot('snap', 'vm-3');
      expect(hashed).toBeGreaterThan(2);
    });

    test('a snapshot that was removed, or made anew, is not restored from memory', async () => {
      await host.registry.restoreSnapshot('snap', 'vm-2');
      await host.anotherRegistry().removeSnapshot('snap');
      await rejection(host.registry.restoreSnapshot('snap', 'vm-3'), 'SNAPSHOT_NOT_FOUND');
      await writeFile(host.slot('vm-1').image, pattern(MiB, 7));
      await host.anotherRegistry().snapshotSlot('vm-1', 'snap');
      const { path } = await host.registry.restoreSnapshot('snap', 'vm-3');
      expect((await readFile(path)).equals(pattern(MiB, 7))).toBe(true);
    });

    test('many at once: verified once, one result for each', async () => {
      const requests = Array.from({ length: 20 }, (_, i) => ({ snapshot: 'snap', vmId: `many-${i}` }));
      const results = await host.registry.restoreMany([...requests, { snapshot: 'none', vmId: 'x' }]);
      expect(hashed).toBe(2);
      expect(results.slice(0, 20).every(({ status }) => status === 'fulfilled')).toBe(true);
      expect(results[20]).toMatchObject({ reason: { code: 'SNAPSHOT_NOT_FOUND' } });
    });
  },
  ({ name }) => ['XFS', 'btrfs', 'ext4'].includes(name),
);

test('a second name does not hide that somebody wrote to a file of the snapshot', async ({ skip }) => {
  const xfs = filesystemNamed('XFS');
  if (xfs.missing !== undefined) skip(xfs.missing);
  const host = await Host.in(xfs.path);
  await host.addTemplate('debian', 'debian');
  await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
  const memory = join(host.root, 'memory');
  await writeFile(memory, Buffer.alloc(65_536, 7));
  await host.registry.snapshotSlot('vm-1', 'paused', { with: [memory] });
  await host.registry.restoreSnapshot('paused', 'vm-2');
  const file = join(host.clonesDir, '.microvm-rootfs/snapshots/paused/memory');
  // As by a backup, cp -al.
  await link(file, join(host.root, 'backup'));
  await writeFile(join(host.root, 'times'), '');
  execFileSync('touch', ['--reference', file, join(host.root, 'times')]);
  await chmod(file, 0o600);
  await writeFile(file, Buffer.alloc(65_536, 8));
  execFileSync('touch', ['--reference', join(host.root, 'times'), file]);
  await rejection(host.registry.restoreSnapshot('paused', 'vm-3'), 'SNAPSHOT_CORRUPT');
});
