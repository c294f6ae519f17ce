// A reflink costs by the extent and flushes its source first, so that of a disk that its guest has written to can take
// seconds. Such reflinks share the two turns of long work: Node's other threads stay free for `fs` and `dns`.
import { execFileSync } from 'node:child_process';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { inTurn } from '../../src/system/long-work.js';
import { Task } from '../../src/system/task.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';

const BLOCK = 4096;
const WRITABLE = { writable: true } as const;

/** Writes every other block, which leaves as many extents as blocks are written. */
async function scatter(path: string, blocks: number): Promise<void> {
  const file = await open(path, 'r+');
  for (let i = 0; i < blocks; i++) await file.write(Buffer.alloc(BLOCK, i), 0, BLOCK, 2 * i * BLOCK);
  await file.sync();
  await file.close();
}

/** Takes both turns until it is called. */
function takeTurns(): () => Promise<void> {
  let end = () => {};
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  onTestFinished(end);
  const jobs = [0, 1].map((i) => inTurn(new Task(`long job ${i}`, undefined), () => ended));
  return async () => {
    end();
    await Promise.all(jobs);
  };
}

/** Resolves to whether the work waits until the long work is done. */
async function waits(work: () => Promise<unknown>): Promise<boolean> {
  const free = takeTurns();
  let done = false;
  const finished = work().finally(() => {
    done = true;
  });
  await sleep(150);
  const waited = !done;
  await free();
  await finished;
  return waited;
}

describeEachFilesystem(
  (filesystem) => {
    test('forks, snapshots, exports by copy, restores and grows of existing slots wait for their turn', async () => {
      const host = await Host.in(filesystem.path);
      const { registry } = host;
      await host.addExt4Template('debian', 16 * MiB);
      await registry.cloneForVm('vm-1', 'debian', WRITABLE);
      await registry.cloneForVm('vm-2', 'debian');
      execFileSync('ln', ['-f', host.template('debian'), host.slot('vm-2').image]);
      const jail = join(host.root, 'jailed.ext4');
      expect(await waits(() => registry.forkSlot('vm-1', 'fork'))).toBe(true);
      expect(await waits(() => registry.exportTo('vm-2', jail))).toBe(true);
      expect(await waits(() => registry.snapshotSlot('vm-1', 'snap'))).toBe(true);
      expect(await waits(() => registry.restoreSnapshot('snap', 'restored'))).toBe(true);
      expect(await waits(() => registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB))).toBe(true);
    });

    test('what was slow because of extents says so, and so do slot and usage', async () => {
      const host = await Host.in(filesystem.path);
      const { registry } = host;
      await host.addExt4Template('debian', 64 * MiB);
      await registry.cloneForVm('plain', 'debian', WRITABLE);
      await registry.cloneForVm('vm-1', 'debian', WRITABLE);
      await scatter(host.slot('vm-1').image, 6000);
      const many = expect.toSatisfy((extents: number) => extents > 5000);
      expect(await registry.forkSlot('vm-1', 'fork')).toMatchObject({ extents: many });
      expect(await registry.snapshotSlot('vm-1', 'snap')).toMatchObject({ extents: many });
      expect(await registry.restoreSnapshot('snap', 'restored')).toMatchObject({ extents: many });
      expect(await registry.slot('vm-1')).toMatchObject({ extents: many });
      expect((await registry.slot('plain'))?.extents).toBeLessThan(100);
      const { scattered } = await registry.usage();
      expect(scattered.map(({ vmId }) => vmId).sort()).toEqual(['fork', 'restored', 'vm-1']);
    });

    test('clones wait if their template is scattered, and only then', async () => {
      const host = await Host.in(filesystem.path);
      const { registry } = host;
      await host.addExt4Template('debian', 16 * MiB);
      await host.placeTemplate('scattered', async (path) => {
        execFileSync('truncate', ['-s', `${8 * MiB}`, path]);
        await scatter(path, 600);
      });
      await registry.prewarm('debian', { count: 0, ...WRITABLE });
      await registry.prewarm('scattered', { count: 0, ...WRITABLE });
      expect(await waits(() => registry.cloneForVm('plain', 'debian', WRITABLE))).toBe(false);
      expect(await waits(() => registry.cloneForVm('vm-1', 'scattered', WRITABLE))).toBe(true);
      const many = ['vm-2', 'vm-3'].map((vmId) => ({ vmId, stack: 'scattered', options: WRITABLE }));
      expect(await waits(() => registry.cloneMany(many))).toBe(true);
    });
  },
  ({ name }) => name === 'XFS' || name === 'btrfs',
);
