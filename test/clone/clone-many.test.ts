import { mkdir, readFile, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { Cloner } from '../../src/clone/cloner.js';
import { RootfsError } from '../../src/index.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { KiB, MiB, pattern } from '../fixtures/images.js';
import { rejection, thrown } from '../fixtures/rejection.js';

const WRITABLE = { writable: true } as const;

describeEachFilesystem((filesystem) => {
  test('cloneMany: one settled result for each request, in order, cold and warm', async () => {
    const host = await Host.in(filesystem.path);
    // Three hundred copies of it, on a disk that others share.
    await host.addTemplate('debian', pattern(256 * KiB));
    for (const round of ['cold', 'warm']) {
      const ids = Array.from({ length: 150 }, (_, i) => `${round}-${i}`);
      const requests = ids.map((vmId) => ({ vmId, stack: 'debian', options: WRITABLE }));
      const results = await host.registry.cloneMany([
        ...requests,
        { vmId: '', stack: 'debian' },
        { vmId: 'vm', stack: 'missing' },
        { vmId: ids[0] as string, stack: 'debian', options: WRITABLE },
        { vmId: 'aborted', stack: 'debian', options: { signal: AbortSignal.abort() } },
      ]);
      expect(
        results.slice(0, 150).map((r) => (r.status === 'fulfilled' ? r.value.vmId : r.reason.message)),
      ).toEqual(ids);
      const codes = results
        .slice(150)
        .map((r) => (r.status === 'rejected' ? (r.reason as RootfsError).code : r.status));
      expect(codes).toEqual(['INVALID_VM_ID', 'STACK_NOT_FOUND', 'fulfilled', 'ABORT_ERR']);
      const same = results.filter((r) => r.status === 'fulfilled' && r.value.vmId === ids[0]);
      expect(same.map((r) => r.status === 'fulfilled' && r.value.reused).sort()).toEqual([false, true]);
    }
    expect(await host.registry.cloneMany([])).toEqual([]);
    const holes = new Array(2);
    for (const settled of [host.registry.cloneMany(holes), host.registry.restoreMany(holes)])
      expect((await settled).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    expect(await host.leftovers()).toEqual([]);
  });

  test('cloneForVmSync: the same result as cloneForVm once it is warm, NOT_WARM before', async () => {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('debian', pattern(MiB));
    const options = filesystem.reflinks ? WRITABLE : { writable: false };
    thrown(() => host.registry.cloneForVmSync('vm-1', 'debian', options), 'NOT_WARM');
    const first = await host.registry.cloneForVm('vm-1', 'debian', options);
    const second = host.registry.cloneForVmSync('vm-2', 'debian', options);
    expect({ ...second, vmId: 'vm-1', path: first.path }).toEqual(first);
    expect(host.registry.cloneForVmSync('vm-2', 'debian', options).reused).toBe(true);
    thrown(
      () => host.registry.cloneForVmSync('vm-3', 'debian', { ...WRITABLE, sizeBytes: 2 * MiB }),
      'NOT_WARM',
    );
    thrown(
      () => host.registry.cloneForVmSync('vm/2', 'debian', { ...options, sizeBytes: 1 }),
      'SHRINK_REFUSED',
    );
    thrown(() => host.registry.cloneForVmSync('', 'debian'), 'INVALID_VM_ID');
    if (!filesystem.reflinks)
      thrown(() => host.registry.cloneForVmSync('vm-3', 'debian', WRITABLE), 'NOT_WARM');
    await host.addTemplate('debian', pattern(MiB, 7));
    thrown(() => host.registry.cloneForVmSync('vm-4', 'debian', options), 'NOT_WARM');
    expect(await host.slotNames()).toEqual(['vm-1', 'vm-2']);
    await host.registry.close();
    thrown(() => host.registry.cloneForVmSync('vm-5', 'debian', options), 'CLOSED');
  });
});

describeEachFilesystem((filesystem) => {
  async function hostOf(state: string): Promise<Host> {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('debian', pattern(64 * KiB));
    if (state === 'warm') await host.registry.cloneForVm('vm-0', 'debian', WRITABLE);
    return host;
  }

  test.each(['cold', 'warm'])('many of one id, %s: one makes it, all get it', async (state) => {
    const host = await hostOf(state);
    const request = { vmId: 'vm-1', stack: 'debian', options: WRITABLE };
    const settled = await host.registry.cloneMany(Array.from({ length: 100 }, () => request));
    const made = settled.map((r) => (r.status === 'fulfilled' ? r.value.reused : r.reason.code));
    expect(made.sort()).toEqual([false, ...Array.from({ length: 99 }, () => true)]);
  });

  test.each(['cold', 'warm'])('each failure stands alone, %s', async (state) => {
    const host = await hostOf(state);
    await host.registry.cloneForVm('x/y', 'debian', WRITABLE);
    await host.registry.cloneForVm('torn', 'debian', WRITABLE);
    await truncate(host.slot('torn').stamp, 0);
    await mkdir(join(host.clonesDir, 'foreign', 'data'), { recursive: true });
    const settled = await host.registry.cloneMany([
      { vmId: 'x_y', stack: 'debian', options: WRITABLE },
      { vmId: 'good-1', stack: 'debian', options: WRITABLE },
      { vmId: 'torn', stack: 'debian', options: WRITABLE },
      { vmId: 'foreign', stack: 'debian', options: WRITABLE },
      { vmId: 'vm-1', stack: '../debian', options: WRITABLE },
      { vmId: 'vm-1', stack: 'debian', options: { ...WRITABLE, sizeBytes: 1 } },
      null as never,
      { vmId: 7, stack: 'debian' } as never,
      { vmId: 'vm-1', stack: 'debian', options: { ...WRITABLE, nonsense: 1 } as never },
      { vmId: 'x/y', stack: 'debian', options: WRITABLE },
      { vmId: 'good-2', stack: 'debian', options: WRITABLE },
    ]);
    expect(settled.map((r) => (r.status === 'fulfilled' ? r.value.vmId : r.reason.code))).toEqual([
      'VM_ID_COLLISION',
      'good-1',
      'SLOT_TORN',
      expect.stringMatching(/^SLOT_(INVALID|TORN)$/),
      'INVALID_STACK_NAME',
      'SHRINK_REFUSED',
      'INVALID_ARGUMENT',
      expect.stringMatching(/^INVALID_/),
      'INVALID_ARGUMENT',
      'x_y',
      'good-2',
    ]);
    for (const result of settled)
      if (result.status === 'rejected') expect(result.reason).toBeInstanceOf(RootfsError);
    expect(await host.leftovers()).toEqual([]);
  });

  test('from the pool, each ready slot once', async () => {
    const host = await hostOf('cold');
    await host.registry.prewarm('debian', { count: 20 });
    const ids = Array.from({ length: 30 }, (_, i) => (i === 3 ? 'v/3' : `vm-${i}`));
    const settled = await host.registry.cloneMany(
      ids.map((vmId) => ({ vmId, stack: 'debian', options: WRITABLE })),
    );
    const clones = settled.map((r) => (r.status === 'fulfilled' ? r.value : undefined));
    expect(clones.filter((clone) => clone?.pooled).length).toBeGreaterThanOrEqual(20);
    const inodes = await Promise.all(clones.map(async (clone) => (await stat(clone?.path ?? '')).ino));
    expect(new Set(inodes).size).toBe(30);
    expect(await readFile(host.slot('v_3').rawId, 'utf8')).toBe('v/3');
  });
});

describeEachFilesystem(
  (filesystem) => {
    test('500 at once, cold, and once more for the same', async () => {
      const host = await Host.in(filesystem.path);
      await host.addTemplate('debian', pattern(64 * KiB));
      const ids = Array.from({ length: 500 }, (_, i) => `vm-${i}`);
      for (const reused of [false, true]) {
        const settled = await host.registry.cloneMany(
          ids.map((vmId) => ({ vmId, stack: 'debian', options: WRITABLE })),
        );
        // A failure is to say why.
        expect(
          settled.map((r) => (r.status === 'fulfilled' ? [r.value.vmId, r.value.reused] : `${r.reason}`)),
        ).toEqual(ids.map((vmId) => [vmId, reused]));
      }
      expect(await host.slotNames()).toHaveLength(500);
      expect(await host.leftovers()).toEqual([]);
    });
  },
  ({ name }) => ['XFS', 'btrfs', 'ext4'].includes(name),
);

test('a signal that comes while it runs ends its own request alone', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', pattern(64 * KiB));
  const controller = new AbortController();
  const call = host.registry.cloneMany([
    { vmId: 'vm-1', stack: 'debian', options: { ...WRITABLE, signal: controller.signal } },
    { vmId: 'vm-2', stack: 'debian', options: WRITABLE },
  ]);
  controller.abort();
  const [aborted, other] = await call;
  expect(aborted).toMatchObject({ status: 'rejected', reason: { code: 'ABORT_ERR' } });
  expect(other).toMatchObject({ status: 'fulfilled' });
  expect(await host.slotNames()).toEqual(['vm-2']);
  expect(await host.leftovers()).toEqual([]);
});

test('however many are cold, only so many are begun before others have ended', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', pattern(4 * KiB));
  let running = 0;
  let most = 0;
  const clone = Cloner.prototype.clone;
  const spy = vi.spyOn(Cloner.prototype, 'clone').mockImplementation(async function (this: Cloner, request) {
    most = Math.max(most, ++running);
    return clone.call(this, request).finally(() => running--);
  });
  onTestFinished(() => spy.mockRestore());
  const requests = Array.from({ length: 600 }, (_, i) => ({
    vmId: `vm-${i}`,
    stack: 'debian',
    options: WRITABLE,
  }));
  const settled = await host.registry.cloneMany(requests);
  expect(settled.filter(({ status }) => status === 'rejected')).toEqual([]);
  expect(most).toBeGreaterThan(0);
  expect(most).toBeLessThan(requests.length / 2);
});

test('cloneMany wants an array', async () => {
  const host = await Host.in();
  await rejection(host.registry.cloneMany('vm-1' as never), 'INVALID_ARGUMENT');
});
