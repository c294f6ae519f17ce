// Pools of ZFS that are full, read-only, unmounted or suspended under a living registry: typed errors, and nothing is
// lost. npm run test:guests runs them in a guest.
import { rm } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { startChild } from '../fixtures/child.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { type FailMode, Pool } from './zpool.js';

const WRITABLE = { writable: true } as const;

/** A host on a pool, with a slot from before the fault. */
async function hostOn(pool: Pool): Promise<Host> {
  const host = await Host.in(pool.path);
  await host.addTemplate('debian', pattern(8 * MiB));
  await host.registry.cloneForVm('earlier', 'debian', WRITABLE);
  await pool.sync();
  return host;
}

/** The slot from before is whole, nothing else is left, and the next clone is made. */
async function expectNothingLost(host: Host, slots: readonly string[] = ['earlier']): Promise<void> {
  await host.registry.drain();
  expect(await host.slotNames()).toEqual(slots);
  expect(await host.leftovers()).toEqual([]);
  const sha256 = await sha256Of(host.template('debian'));
  for (const slot of slots) expect(await sha256Of(host.slot(slot).image)).toBe(sha256);
  const clone = await host.registry.cloneForVm('after', 'debian', WRITABLE);
  expect(clone).toMatchObject({ strategy: 'reflink', reused: false, sourceSha256: sha256 });
  expect(await sha256Of(clone.path)).toBe(sha256);
  expect(await host.registry.release('after')).toBe(true);
}

/** A process with a warm registry that makes a clone, with a signal, once it is told to, and says how that ends. */
function cloneInChild({ templateDir, clonesDir }: Host, options: object) {
  const child = startChild(
    `const registry = new lib.RootfsRegistry(args.config);
     await registry.prewarm('debian', { writable: true, count: 0 });
     console.log('warm');
     await new Promise((resolve) => process.stdin.once('data', resolve));
     const signal = AbortSignal.timeout(1000);
     setTimeout(() => console.log('turns'), 2000);
     console.log(await registry.cloneForVm('vm-1', 'debian', { ...args.options, signal }).then(
       () => 'made', (error) => error instanceof lib.RootfsError ? error.code : error.stack));
     await registry.close();
     console.log('closed');
     process.exit();`,
    { config: { templateDir, clonesDir }, options },
  );
  const lines: string[] = [];
  for (const input of [child.stdout, child.stderr])
    if (input !== null) createInterface({ input }).on('line', (line) => lines.push(line));
  return { lines, start: () => child.stdin?.write('\n') };
}

async function untilSaid(lines: readonly string[], what: string): Promise<void> {
  await expect.poll(() => lines, { timeout: 120_000 }).toContain(what);
}

describeEachFilesystem(() => {
  test('full: ENOSPC, nothing is left, and what is released makes room', async () => {
    const pool = await Pool.create();
    const host = await hostOn(pool);
    const ballast = await pool.fill();
    let refused = 0;
    for (let i = 0; i < 5; i++) {
      const outcome = await host.registry.cloneForVm(`vm-${i}`, 'debian', WRITABLE).catch((error) => error);
      if (!(outcome instanceof Error)) continue;
      expect(outcome).toMatchObject({ code: 'ENOSPC' });
      refused++;
    }
    expect(refused).toBeGreaterThan(0);
    const made = await host.slotNames();
    expect(made).toHaveLength(1 + 5 - refused);
    for (const slot of made.slice(1)) expect(await host.registry.release(slot)).toBe(true);
    await rm(ballast);
    await pool.sync();
    await expectNothingLost(host);
  });

  test('a quota that is used up: EDQUOT, nothing is left, and a release works', async () => {
    const pool = await Pool.create();
    const host = await hostOn(pool);
    await pool.zfs('set', 'refquota=40M');
    const codes: string[] = [];
    for (let i = 0; i < 4; i++) {
      const clone = host.registry.cloneForVm(`vm-${i}`, 'debian', WRITABLE);
      codes.push(await clone.then(({ strategy }) => strategy).catch(({ code }) => code));
      await pool.sync(); // ZFS counts what it has written
    }
    expect(codes.at(-1)).toBe('EDQUOT');
    for (const slot of (await host.slotNames()).slice(1))
      expect(await host.registry.release(slot)).toBe(true);
    await pool.zfs('set', 'refquota=none');
    await expectNothingLost(host);
  });

  test('a dataset that is made read-only: EROFS, and a slot that is there is handed out', async () => {
    const pool = await Pool.create();
    const host = await hostOn(pool);
    await pool.zfs('set', 'readonly=on');
    await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), 'EROFS');
    await rejection(host.registry.release('earlier'), 'EROFS');
    expect(await host.registry.cloneForVm('earlier', 'debian', WRITABLE)).toMatchObject({ reused: true });
    await pool.zfs('set', 'readonly=off');
    await expectNothingLost(host);
  });

  test('a pool that is imported read-only: EROFS, and templates can be read', async () => {
    const pool = await Pool.create();
    const host = await hostOn(pool);
    await host.registry.close();
    await pool.export();
    await pool.import('-o', 'readonly=on');
    const reader = host.anotherRegistry();
    expect(await reader.stacks()).toMatchObject([{ name: 'debian' }]);
    await rejection(reader.cloneForVm('vm-1', 'debian', WRITABLE), 'EROFS');
    await rejection(reader.release('earlier'), 'EROFS');
    const elsewhere = host.anotherRegistry({ clonesDir: (await Host.in()).clonesDir });
    const clone = await elsewhere.cloneForVm('vm-1', 'debian', WRITABLE);
    expect(await sha256Of(clone.path)).toBe(clone.sourceSha256);
    await reader.close();
    await elsewhere.close();
    await pool.export();
    await pool.import();
    const writer = host.anotherRegistry();
    expect(await writer.cloneForVm('earlier', 'debian', WRITABLE)).toMatchObject({ reused: true });
    expect(await writer.release('earlier')).toBe(true);
  });

  test('a dataset is not unmounted under a registry; lazily, its stacks are gone until it is back', async () => {
    const pool = await Pool.create();
    const host = await hostOn(pool);
    await expect(pool.zfs('unmount')).rejects.toThrow('busy');
    await pool.unmountLazily();
    await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), 'STACK_NOT_FOUND');
    await pool.zfs('mount');
    await expectNothingLost(host);
  });

  test.for<FailMode>(['continue', 'wait'])(
    'suspended with failmode=%s: the event loop turns, and after that nothing is lost',
    async (failMode) => {
      const pool = await Pool.create(failMode);
      const host = await hostOn(pool);
      const child = cloneInChild(host, { ...WRITABLE, durable: true });
      await untilSaid(child.lines, 'warm');
      await pool.suspend();
      child.start();
      await untilSaid(child.lines, 'turns');
      await sleep(5000);
      const ofClone = (lines: readonly string[]) =>
        lines.filter((line) => !['warm', 'turns', 'closed'].includes(line));
      const fails = failMode === 'continue';
      expect(ofClone(child.lines)).toEqual(fails ? ['EIO'] : []);
      await pool.heal();
      await untilSaid(child.lines, 'closed');
      // The signal came while the kernel held the call up, and what was made then is not taken back.
      expect(ofClone(child.lines)).toEqual([fails ? 'EIO' : 'made']);
      await expectNothingLost(host, fails ? ['earlier'] : ['earlier', 'vm-1']);
    },
  );
});
