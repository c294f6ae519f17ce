// A slot's image opened to be read: what is opened is closed again, whatever happens.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import { chmod, rm, truncate, writeFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';

const openOn = (path: string) =>
  readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(path);
    } catch {
      return false; // closed meanwhile
    }
  });

describeEachFilesystem(
  ({ path }) => {
    test('a slot that is refused, or that its work fails on, leaves no descriptor', async () => {
      const host = await Host.in(path);
      const { registry } = host;
      await host.addExt4Template('debian', MiB);
      const image = (await registry.cloneForVm('vm', 'debian', { writable: true })).path;
      await chmod(image, 0o600);
      const holder = spawn('sh', ['-c', 'exec 3<>"$0"; echo held; cat', image], {
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      await once(holder.stdout, 'data');
      await rejection(registry.forkSlot('vm', 'child', { refuseInUse: true }), 'SLOT_IN_USE');
      await rejection(registry.commitSlot('vm', 'golden'), 'SLOT_IN_USE');
      holder.stdin.end();
      await once(holder, 'close');

      await registry.cloneForVm('taken', 'debian', { writable: true });
      await rejection(registry.forkSlot('vm', 'taken'), 'SLOT_EXISTS');
      await rejection(registry.snapshotSlot('vm', 'paused', { with: ['/nowhere'] }), 'ENOENT');
      await writeFile(`${image}.sha256`, '');
      await rejection(registry.forkSlot('vm', 'child'), 'SLOT_TORN');
      await rejection(registry.snapshotSlot('vm', 'paused'), 'SLOT_TORN');
      await rejection(registry.commitSlot('vm', 'golden'), 'SLOT_TORN');
      await rm(image);
      await rejection(registry.forkSlot('vm', 'child'), 'SLOT_TORN');
      expect(openOn(image)).toEqual([]);
    });

    test('disks that their VMMs made endless, and whose template is gone, keep no other waiting', async () => {
      const host = await Host.in(path);
      const { registry } = host;
      await host.addExt4Template('debian', MiB);
      await host.addExt4Template('other', MiB);
      await registry.cloneForVm('honest', 'other', { writable: true });
      const ids = Array.from({ length: 40 }, (_, i) => `vm-${i}`);
      for (const id of ids) {
        const clone = await registry.cloneForVm(id, 'debian', { writable: true });
        await truncate(clone.path, 2 ** 40 - 2 ** 20);
      }
      await registry.removeStack('debian', { force: true });
      const later = host.anotherRegistry();
      await later.stacks();
      const stop = new AbortController();
      const endless = ids.map((id) => later.snapshotSlot(id, id, { signal: stop.signal }));
      const ends = Promise.allSettled(endless);
      await later.snapshotSlot('honest', 'honest');
      await later.forkSlot('honest', 'child');
      stop.abort();
      expect(new Set((await ends).map(({ status }) => status))).toEqual(new Set(['rejected']));
      await truncate(host.slot('vm-0').image, 2 ** 41);
      await rejection(later.snapshotSlot('vm-0', 'longer'), 'SLOT_TORN');
      await rejection(later.forkSlot('vm-0', 'longer'), 'SLOT_TORN');
    });
  },
  ({ name }) => ['XFS', 'ext4'].includes(name),
);
