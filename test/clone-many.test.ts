import { expect, test } from 'vitest';
import type { RootfsError } from '../src/index.js';
import { describeEachFilesystem } from './fixtures/each-filesystem.js';
import { Host } from './fixtures/host.js';
import { MiB, pattern } from './fixtures/images.js';
import { rejection, thrown } from './fixtures/rejection.js';

const WRITABLE = { writable: true } as const;

describeEachFilesystem((filesystem) => {
  test('cloneMany: one settled result for each request, in order, cold and warm', async () => {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('debian', pattern(MiB));
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
      expect(results.slice(0, 150).map((r) => r.status === 'fulfilled' && r.value.vmId)).toEqual(ids);
      const codes = results
        .slice(150)
        .map((r) => (r.status === 'rejected' ? (r.reason as RootfsError).code : r.status));
      expect(codes).toEqual(['INVALID_VM_ID', 'STACK_NOT_FOUND', 'fulfilled', 'ABORT_ERR']);
      const same = results.filter((r) => r.status === 'fulfilled' && r.value.vmId === ids[0]);
      expect(same.map((r) => r.status === 'fulfilled' && r.value.reused).sort()).toEqual([false, true]);
    }
    expect(await host.registry.cloneMany([])).toEqual([]);
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
    thrown(() => host.registry.cloneForVmSync('vm-5', 'debian', options), 'NOT_WARM');
  });
});

test('cloneMany wants an array', async () => {
  const host = await Host.in();
  await rejection(host.registry.cloneMany('vm-1' as never), 'INVALID_ARGUMENT');
});
