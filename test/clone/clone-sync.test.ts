// The clone on the calling thread: the same contract as the other, but never long work.
import { readFile, rm, truncate, utimes, writeFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import type { CloneOptions } from '../../src/index.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { sha256, sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { thrown } from '../fixtures/rejection.js';
import { lacksRoot } from '../fixtures/tools.js';

const BYTES = pattern(MiB);
const WRITABLE = { writable: true } as const;

test('errors have the codes that cloneForVm has', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', BYTES);
  await host.registry.cloneForVm('vm-1', 'debian', { writable: false });
  const sync = (id: string, stack: string, options: CloneOptions = { writable: false }) =>
    host.registry.cloneForVmSync(id, stack, options);
  thrown(() => sync('', 'debian'), 'INVALID_VM_ID');
  thrown(() => sync('vm-2', '../debian'), 'INVALID_STACK_NAME');
  thrown(() => sync('vm-2', 'debian', { sizeBytes: -1 }), 'INVALID_ARGUMENT');
  thrown(() => sync('vm-2', 'debian', { nonsense: true } as never), 'INVALID_ARGUMENT');
  thrown(() => sync('vm-2', 'debian', { sizeBytes: MiB - 1 }), 'SHRINK_REFUSED');
  thrown(() => sync('vm/1', 'debian', WRITABLE), 'NOT_WARM'); // nothing of a/b yet: vm_1 is free, a copy is long work
  await host.registry.cloneForVm('a/b', 'debian', { writable: false });
  thrown(() => sync('a_b', 'debian'), 'VM_ID_COLLISION');
  await truncate(host.slot('vm-1').stamp, 0);
  thrown(() => sync('vm-1', 'debian'), 'SLOT_TORN');
  await writeFile(host.slot('vm-1').stamp, 'f'.repeat(64));
  thrown(() => sync('vm-1', 'debian'), 'STAMP_MISMATCH');
});

describeEachFilesystem((filesystem) => {
  const options = filesystem.reflinks ? WRITABLE : { writable: false };

  async function warmHost(): Promise<Host> {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('debian', BYTES);
    await host.registry.cloneForVm('vm-0', 'debian', options);
    return host;
  }

  test('cold in every way it is NOT_WARM, and does nothing', async () => {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('debian', BYTES);
    const cold = () => thrown(() => host.registry.cloneForVmSync('vm-1', 'debian', options), 'NOT_WARM');
    cold();
    await host.registry.stack('debian'); // the digest is known, the clones folder is not open
    cold();
    thrown(() => host.registry.cloneForVmSync('vm-1', 'missing', options), 'NOT_WARM');
    expect(await host.slotNames()).toEqual([]);
    await host.registry.prewarm('debian', { count: 0 });
    expect(host.registry.cloneForVmSync('vm-1', 'debian', options)).toMatchObject({ reused: false });
    expect(await sha256Of(host.slot('vm-1').image)).toBe(sha256(BYTES));
    expect(await host.leftovers()).toEqual([]);
  });

  test('the same clone as cloneForVm makes, with owner and mode', async ({ skip }) => {
    const missing = lacksRoot();
    if (missing !== undefined) skip(missing);
    const host = await warmHost();
    if (!filesystem.reflinks) return;
    const dress = { ...WRITABLE, owner: { uid: 12, gid: 34 }, mode: 0o640 };
    const there = await host.registry.cloneForVm('vm-1', 'debian', dress);
    const here = host.registry.cloneForVmSync('vm-2', 'debian', dress);
    expect({ ...here, vmId: 'vm-1', path: there.path }).toEqual(there);
    expect(host.registry.cloneForVmSync('vm-2', 'debian', dress)).toMatchObject({ reused: true });
    // Another mode is a change of a slot that is there: not this call's.
    thrown(() => host.registry.cloneForVmSync('vm-2', 'debian', { ...dress, mode: 0o600 }), 'NOT_WARM');
  });

  test('an existing slot is the same as the other call finds, and its bytes are not touched', async () => {
    const host = await warmHost();
    const there = await host.registry.cloneForVm('vm-0', 'debian', options);
    const here = host.registry.cloneForVmSync('vm-0', 'debian', options);
    expect(here).toEqual(there);
    expect(here.reused).toBe(true);
    host.registry.cloneForVmSync('a/b', 'debian', options);
    thrown(() => host.registry.cloneForVmSync('a_b', 'debian', options), 'VM_ID_COLLISION');
    expect(host.registry.cloneForVmSync('a/b', 'debian', options).reused).toBe(true);
  });

  test('a template replaced or touched is NOT_WARM until somebody looked again', async () => {
    const host = await warmHost();
    await host.addTemplate('debian', pattern(MiB, 3));
    thrown(() => host.registry.cloneForVmSync('vm-1', 'debian', options), 'NOT_WARM');
    await host.registry.prewarm('debian', { count: 0 });
    expect(host.registry.cloneForVmSync('vm-1', 'debian', options).sourceSha256).toBe(
      sha256(pattern(MiB, 3)),
    );
    await utimes(host.template('debian'), new Date(), new Date(1_000_000_000_000));
    thrown(() => host.registry.cloneForVmSync('vm-2', 'debian', options), 'NOT_WARM');
    await rm(host.template('debian'));
    thrown(() => host.registry.cloneForVmSync('vm-2', 'debian', options), 'NOT_WARM');
    expect(await host.slotNames()).toEqual(['vm-0', 'vm-1']);
    await host.registry.drain();
    expect(await host.leftovers()).toEqual([]);
  });

  test('from the pool, where also copies are warm', async () => {
    const host = await warmHost();
    await host.registry.prewarm('debian', { count: 4 });
    const clone = host.registry.cloneForVmSync('vm-1', 'debian', WRITABLE);
    expect(clone).toMatchObject({ pooled: true, reused: false, sharesTemplateInode: false });
    expect((await host.registry.cloneForVm('x/y', 'debian', WRITABLE)).pooled).toBe(true);
    thrown(() => host.registry.cloneForVmSync('x_y', 'debian', WRITABLE), 'VM_ID_COLLISION');
    expect(await sha256Of(clone.path)).toBe(sha256(BYTES));
    const other = await host.registry.cloneForVm('vm-2', 'debian', WRITABLE);
    expect({ ...clone, vmId: 'vm-2', path: other.path }).toEqual(other);
  });

  test('an id with a file of its own is not taken from the pool, which would flush that file', async () => {
    const host = await warmHost();
    await host.registry.prewarm('debian', { count: 4 });
    const clone = () => host.registry.cloneForVmSync('x/y', 'debian', WRITABLE);
    if (!filesystem.reflinks) return thrown(clone, 'NOT_WARM');
    expect(clone()).toMatchObject({ pooled: false, strategy: 'reflink' });
    return expect(await readFile(host.slot('x_y').rawId, 'utf8')).toBe('x/y');
  });

  test('of a size: NOT_WARM until it was sealed at that size', async () => {
    const host = await Host.in(filesystem.path);
    await host.addExt4Template('debian', 16 * MiB);
    await host.registry.prewarm('debian', { count: 0 });
    const grown = { ...WRITABLE, sizeBytes: 32 * MiB };
    thrown(() => host.registry.cloneForVmSync('vm-1', 'debian', grown), 'NOT_WARM');
    await host.registry.prewarm('debian', { count: filesystem.reflinks ? 0 : 1, sizeBytes: 32 * MiB });
    const clone = host.registry.cloneForVmSync('vm-1', 'debian', grown);
    expect(clone).toMatchObject({ sizeBytes: 32 * MiB, reused: false });
    expect(host.registry.cloneForVmSync('vm-1', 'debian', grown).reused).toBe(true);
    thrown(
      () => host.registry.cloneForVmSync('vm-1', 'debian', { ...grown, sizeBytes: 64 * MiB }),
      filesystem.reflinks ? 'NOT_WARM' : 'SIZE_STAMP_MISMATCH',
    );
  });
});
