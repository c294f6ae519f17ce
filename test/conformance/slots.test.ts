// A slot's life on every filesystem: torn, colliding, grown, released, swept.
import { open, readFile, rm, truncate } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { exists, snapshot } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { faultsOf, MiB, readInside } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';

const WRITABLE = { writable: true } as const;

async function hostOn(folder: string): Promise<Host> {
  const host = await Host.in(folder);
  await host.addTemplate('debian', 'debian');
  return host;
}

describeEachFilesystem((filesystem) => {
  const newHost = () => hostOn(filesystem.path);

  test.each([
    ['stamp emptied', (host: Host) => truncate(host.slot('vm-1').stamp, 0)],
    ['image cut off', (host: Host) => truncate(host.slot('vm-1').image, 1)],
    ['image gone', (host: Host) => rm(host.slot('vm-1').image)],
  ])('torn: %s; recover clears it, the same call works', async (_what, damage) => {
    const host = await newHost();
    await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    await damage(host);
    await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), 'SLOT_TORN');
    expect((await host.registry.recover()).tornSlots).toEqual(['vm-1']);
    expect(await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).toMatchObject({ reused: false });
  });

  test('without any stamp it may belong to somebody else: refused, left by recover(), released by name', async () => {
    const host = await newHost();
    await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    await host.registry.drain();
    await rm(host.slot('vm-1').stamp);
    await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), 'SLOT_TORN');
    expect((await host.registry.recover()).tornSlots).toEqual([]);
    expect(await host.registry.release('vm-1')).toBe(true);
    expect(await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).toMatchObject({ reused: false });
  });

  test('two ids with one safe form: the second is refused on clone, grow and release', async () => {
    const host = await newHost();
    await host.registry.cloneForVm('a/b', 'debian', WRITABLE);
    await host.registry.drain();
    const before = await snapshot(host.slot('a_b').path);
    for (const id of ['a_b', 'a.b', 'a b']) {
      await rejection(host.registry.cloneForVm(id, 'debian', WRITABLE), 'VM_ID_COLLISION');
      await rejection(host.registry.cloneForVmWithSize(id, 'debian', MiB), 'VM_ID_COLLISION');
      await rejection(host.registry.release(id), 'VM_ID_COLLISION');
    }
    expect(await snapshot(host.slot('a_b').path)).toEqual(before);
    expect(await host.registry.release('a/b')).toBe(true);
    expect(await host.registry.cloneForVm('a_b', 'debian', WRITABLE)).toMatchObject({ reused: false });
    await rejection(host.registry.cloneForVm('a/b', 'debian', WRITABLE), 'VM_ID_COLLISION');
    await rejection(host.registry.release('a/b'), 'VM_ID_COLLISION');
  });

  test('a grown clone is a clean filesystem with all that was in it, made at once or later', async () => {
    const host = await newHost();
    await host.addExt4Template('ext4', 16 * MiB);
    await host.registry.cloneForVm('later', 'ext4', WRITABLE);
    for (const id of ['at-once', 'later', 'at/once']) {
      const { path, vmId } = await host.registry.cloneForVmWithSize(id, 'ext4', 48 * MiB);
      expect(await faultsOf(path)).toBe('');
      expect(await readInside(path, '/etc/hostname')).toBe('microvm\n');
      expect(await readFile(host.slot(vmId).sizeStamp, 'utf8')).toBe(String(48 * MiB));
    }
    await host.registry.drain();
    expect(await host.leftovers()).toEqual([]);
  });

  test('release takes the slot while the image is open; its holder reads on', async () => {
    const host = await newHost();
    const { path } = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    const file = await open(path, 'r+');
    expect(await host.registry.release('vm-1')).toBe(true);
    expect(await exists(host.slot('vm-1').path)).toBe(false);
    expect(await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).toMatchObject({ reused: false });
    expect(await readFile(file, 'utf8')).toBe('debian');
    // What is open cannot be removed on FUSE and NFS, which rename it instead; that is nobody's failure.
    await host.registry.recover();
    await file.close();
  });

  test('a batch: one settled result for each request, in order', async () => {
    const host = await newHost();
    await host.registry.cloneForVm('warm', 'debian', WRITABLE);
    const results = await host.registry.cloneMany([
      { vmId: 'a', stack: 'debian', options: WRITABLE },
      { vmId: '', stack: 'debian' },
      { vmId: 'b', stack: 'missing' },
      { vmId: 'warm', stack: 'debian', options: WRITABLE },
      { vmId: 'a', stack: 'debian', options: WRITABLE },
    ]);
    expect(results.map((r) => (r.status === 'fulfilled' ? r.value.vmId : r.reason.code))).toEqual([
      'a',
      'INVALID_VM_ID',
      'STACK_NOT_FOUND',
      'warm',
      'a',
    ]);
    expect(await host.slotNames()).toEqual(['a', 'warm']);
  });

  test('ready slots are handed out by a rename, with stamps and id of their own', async () => {
    const host = await newHost();
    await host.registry.prewarm('debian', { count: 2 });
    const first = await host.registry.cloneForVm('vm/1', 'debian', WRITABLE);
    expect(first).toMatchObject({ pooled: true, reused: false, sharesTemplateInode: false });
    expect(await readFile(host.slot('vm_1').rawId, 'utf8')).toBe('vm/1');
    expect(await readFile(first.path, 'utf8')).toBe('debian');
    await host.registry.drain();
  });

  test('a slot in use is neither grown nor, if asked so, released', async () => {
    const host = await newHost();
    await host.addExt4Template('ext4', 16 * MiB);
    const { path } = await host.registry.cloneForVm('vm-1', 'ext4', WRITABLE);
    const file = await open(path, 'r+');
    await rejection(host.registry.cloneForVmWithSize('vm-1', 'ext4', 48 * MiB), 'SLOT_IN_USE');
    await rejection(host.registry.release('vm-1', { refuseInUse: true }), 'SLOT_IN_USE');
    await file.close();
    expect(await host.registry.cloneForVmWithSize('vm-1', 'ext4', 48 * MiB)).toMatchObject({
      sizeBytes: 48 * MiB,
    });
  });

  test('a template that is open for writing is refused', async () => {
    const host = await newHost();
    const file = await open(host.template('debian'), 'r+');
    await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), 'TEMPLATE_CHANGED');
    await rejection(host.registry.stack('debian'), 'TEMPLATE_CHANGED');
    expect(await host.slotNames()).toEqual([]);
    await file.close();
    expect(await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).toMatchObject({ reused: false });
  });
});
