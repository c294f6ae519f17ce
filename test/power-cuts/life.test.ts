// What is always durable (stacks and snapshots) and what can be (forks), cut while it is made and after.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { RootfsRegistry } from '../../src/index.js';
import { exists, sha256Of } from '../fixtures/files.js';
import { describeEachDisk, use } from './cut-hosts.js';
import { cutWhile } from './cut-while.js';
import type { CutHost } from './host.js';

const CUTS = Math.ceil(Number(process.env.POWER_CUTS ?? 24) / 3);

/** The calls, in the order in which they are made; each is looked for after a cut. */
const STEPS = ['publish', 'replace', 'fork', 'snapshot'] as const;

describeEachDisk((_kind, bench) => {
  test('a resolved publish, durable fork and snapshot are there', async () => {
    const { disk, host } = await bench();
    const copy = await disk.fresh(() =>
      use(host, async (registry) => {
        await make(host, registry, () => {});
        return disk.cut();
      }),
    );
    await disk.restarted(copy, () => look(host, STEPS.length));
  });

  test('cut while they are made, each is whole or absent, and can be made', {
    timeout: 1_800_000,
  }, async () => {
    const cut = await bench();
    await cutWhile(cut, CUTS, {
      what: 'stacks, forks and snapshots are made',
      count: STEPS.length,
      lastMs: 100,
      make: (registry, onStep) => make(cut.host, registry, onStep),
      look: (done) => look(cut.host, done),
    });
  });
});

async function make(host: CutHost, registry: RootfsRegistry, onStep: () => void): Promise<void> {
  await registry.cloneForVm('parent', 'ext4', { writable: true, durable: true });
  await registry.publishStack('new', host.templatePath('ext4'));
  onStep();
  await registry.publishStack('new', host.templatePath('ext4'), { replace: true });
  onStep();
  await registry.forkSlot('parent', 'child/1', { durable: true });
  onStep();
  await registry.snapshotSlot('parent', 'paused');
  onStep();
}

/** The first `done` steps are there; of the others none but the next, and that whole. */
async function look(host: CutHost, done: number): Promise<void> {
  const digest = host.digestOf('ext4');
  await use(host, async (registry) => {
    const stack = await registry.stack('new');
    expect(stack !== undefined || done < 1).toBe(true);
    if (stack !== undefined)
      expect([stack.sha256, await sha256Of(stack.templatePath)]).toEqual([digest, digest]);

    const child = join(host.clonesDir, 'child_1');
    const forked = await exists(child);
    expect(forked || done < 3).toBe(true);
    if (forked) {
      expect(await readFile(join(child, 'rootfs.ext4.sha256'), 'utf8')).toBe(digest);
      expect(await readFile(join(child, 'rootfs.ext4.id'), 'utf8')).toBe('child/1');
      expect(await sha256Of(join(child, 'rootfs.ext4'))).toBe(digest);
    }

    const snapshots: string[] = [];
    for await (const { name } of registry.snapshots()) snapshots.push(name);
    expect(snapshots.length === 1 || done < 4).toBe(true);
    for (const name of snapshots) await registry.verifySnapshot(name);
    if (done < 3) expect(snapshots).toEqual([]);

    await registry.recover();
    await registry.cloneForVm('parent', 'ext4', { writable: true });
    await registry.publishStack('new', host.templatePath('ext4'), { replace: true });
    if (!forked) await registry.forkSlot('parent', 'child/1');
    if (snapshots.length === 0) await registry.snapshotSlot('parent', 'paused');
    const { tornSlots, unstamped } = await registry.recover();
    expect([...tornSlots, ...unstamped]).toEqual([]);
  });
}
