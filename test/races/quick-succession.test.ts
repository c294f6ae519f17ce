// Slots, stacks and sealed images that go and come back at the same moment: a call that needs only another try tries
// again by itself.
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { RootfsError, type RootfsRegistry } from '../../src/index.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { MiB, makeExt4Image } from '../fixtures/images.js';

const WRITABLE = { writable: true } as const;

/** What the work ends with, over and over, while `meanwhile` runs. */
async function codesOf(
  work: (i: number) => Promise<unknown>,
  meanwhile: Promise<unknown>,
): Promise<Record<string, number>> {
  let done = false;
  const finished = meanwhile.finally(() => {
    done = true;
  });
  const codes: Record<string, number> = {};
  for (let i = 0; !done; i++) {
    const outcome = await work(i).catch((error: unknown) => error);
    const failed = outcome instanceof Error;
    const code = outcome instanceof RootfsError ? outcome.code : failed ? outcome.message : 'done';
    codes[code] = (codes[code] ?? 0) + 1;
  }
  await finished;
  return codes;
}

async function times(count: number, work: (i: number) => Promise<unknown>): Promise<void> {
  for (let i = 0; i < count; i++) await work(i);
}

/** A registry on the same folders that releases the slot and clones it again. */
function comeAndGo(other: RootfsRegistry): Promise<void> {
  return times(60, async () => {
    await other.release('vm-1');
    await other.cloneForVm('vm-1', 'debian', WRITABLE);
    await sleep(2);
  });
}

describeEachFilesystem(
  (filesystem) => {
    test('exports, forks and commits of a slot that is released and cloned again meanwhile', async () => {
      const host = await Host.in(filesystem.path);
      const { registry } = host;
      await host.addExt4Template('debian', 16 * MiB);
      await registry.cloneForVm('vm-1', 'debian', WRITABLE);
      const other = host.anotherRegistry();
      const calls = {
        exportTo: async (i: number) => {
          const path = join(host.root, `jail-${i}`);
          await registry.exportTo('vm-1', path).finally(() => rm(path, { force: true }));
        },
        forkSlot: (i: number) => registry.forkSlot('vm-1', `fork-${i}`),
        commitSlot: () => registry.commitSlot('vm-1', 'committed', { replace: true }),
      };
      for (const [name, call] of Object.entries(calls)) {
        const codes = await codesOf(call, comeAndGo(other));
        // It is rarely busy: a call may lose every round.
        const { done, SLOT_NOT_FOUND: absent, SLOT_BUSY: busy, ...others } = codes;
        expect(others, `${name}: ${done} done, ${absent} absent, ${busy} busy`).toEqual({});
      }
    });

    test('a stack that is published in quick succession can be looked at, cloned, grown and prewarmed', async () => {
      const host = await Host.in(filesystem.path);
      const { registry } = host;
      const images = ['a', 'b'].map((label) => join(host.root, `${label}.ext4`));
      for (const [i, image] of images.entries()) await makeExt4Image(image, 16 * MiB, ['-L', `image-${i}`]);
      const other = host.anotherRegistry();
      const publish = (i: number) => other.publishStack('debian', images[i % 2] as string, { replace: true });
      await publish(0);
      const calls = {
        stack: () => registry.stack('debian'),
        clone: (i: number) => registry.cloneForVm(`vm-${i}`, 'debian', WRITABLE),
        grow: (i: number) => registry.cloneForVmWithSize(`grown-${i}`, 'debian', 32 * MiB, WRITABLE),
        prewarm: () => registry.prewarm('debian', { count: 2, ...WRITABLE }),
      };
      for (const [name, call] of Object.entries(calls))
        expect(Object.keys(await codesOf(call, times(8, publish))), name).toEqual(['done']);
      await registry.prewarm('debian', { count: 0 });
    });

    test('sealed images that another process removed are made again for a grow and for ready slots', async () => {
      const host = await Host.in(filesystem.path);
      const { registry } = host;
      await host.addExt4Template('debian', 16 * MiB);
      await registry.cloneForVm('vm-1', 'debian', WRITABLE);
      const sealed = join(host.clonesDir, '.microvm-rootfs', 'sealed');
      const [key] = await registry.sealedImages();
      expect(key).toBeDefined();
      await rm(join(sealed, `${key?.sha256}-${key?.sizeBytes}`), { recursive: true });
      expect(await registry.cloneForVmWithSize('vm-2', 'debian', 32 * MiB, WRITABLE)).toMatchObject({
        strategy: 'reflink',
        attempts: [],
      });
      await rm(join(sealed, `${key?.sha256}-${key?.sizeBytes}`), { recursive: true });
      await registry.prewarm('debian', { count: 2, ...WRITABLE });
      expect(await registry.readySlots()).toMatchObject([{ count: 2 }]);
    });
  },
  ({ name }) => name === 'XFS' || name === 'btrfs',
);
