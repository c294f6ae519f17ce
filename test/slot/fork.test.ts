// New slots from those of other VMs.
import { execFileSync } from 'node:child_process';
import { open, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { describeEachFilesystem, filesystemNamed } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';

const WRITABLE = { writable: true } as const;

async function write(path: string, text: string): Promise<void> {
  const file = await open(path, 'r+');
  await file.write(text, 0);
  await file.close();
}

describeEachFilesystem((filesystem) => {
  test('a fork has its parent’s present contents and stamps, and a life of its own', async () => {
    const host = await Host.in(filesystem.path);
    const { registry } = host;
    await host.addExt4Template('debian', 16 * MiB);
    await registry.cloneForVmWithSize('parent', 'debian', 32 * MiB);
    await write(host.slot('parent').image, 'written by the parent');
    const parent = await readFile(host.slot('parent').image);
    const fork = await registry.forkSlot('parent', 'child/1', { mode: 0o640 });
    expect(fork).toMatchObject({
      vmId: 'child_1',
      stack: 'debian',
      path: host.slot('child_1').image,
      sourceSha256: await host.stampOf('parent'),
      sizeBytes: 32 * MiB,
      strategy: filesystem.reflinks ? 'reflink' : 'copy',
    });
    expect((await readFile(fork.path)).equals(parent)).toBe(true);
    expect(await readFile(host.slot('child_1').sizeStamp, 'utf8')).toBe(`${32 * MiB}`);
    expect(await readFile(host.slot('child_1').rawId, 'utf8')).toBe('child/1');
    expect((await stat(fork.path)).mode & 0o777).toBe(0o640);
    await write(fork.path, 'written by the child!');
    expect((await readFile(host.slot('parent').image)).equals(parent)).toBe(true);
    // It is a slot like any other.
    expect(await registry.cloneForVmWithSize('child/1', 'debian', 32 * MiB)).toMatchObject({ reused: true });
    await registry.release('parent');
    expect(await registry.release('child/1')).toBe(true);
    await registry.drain();
    expect(await host.leftovers()).toEqual([]);
  });

  test('of a slot that is its template’s inode: a file of its own', async () => {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('alpine', 'template');
    await host.registry.cloneForVm('parent', 'alpine', { writable: false });
    const { path } = await host.registry.forkSlot('parent', 'child');
    await write(path, 'changed!');
    expect(await readFile(host.template('alpine'), 'utf8')).toBe('template');
    expect(await host.registry.slot('child')).not.toMatchObject({ strategy: 'hardlink' });
  });
});

test('in one trip only from what is plainly whole: the stack that a parent tells, an id with its raw one, a stamp with a newline', async () => {
  const host = await Host.in(filesystemNamed('XFS').path);
  const { registry } = host;
  for (const stack of ['first', 'second']) await host.addTemplate(stack, Buffer.alloc(MiB, 'x'));
  await registry.cloneForVm('a', 'first', WRITABLE);
  await registry.cloneForVm('b/1', 'second', WRITABLE);
  expect(await registry.forkSlot('a', 'c')).toMatchObject({ stack: 'first', strategy: 'reflink' });
  expect(await registry.forkSlot('b/1', 'd/1')).toMatchObject({ stack: 'second', vmId: 'd_1' });
  expect(await registry.slot('d/1')).toMatchObject({ rawId: 'd/1', stack: 'second', health: 'whole' });
  await rejection(registry.forkSlot('d_1', 'e'), 'VM_ID_COLLISION');
  await rejection(registry.forkSlot('b.1', 'e'), 'VM_ID_COLLISION');
  await writeFile(host.slot('a').stamp, `${await host.stampOf('c')}\n`);
  expect(await registry.forkSlot('a', 'e')).toMatchObject({ stack: 'first' });
  expect(await host.stampOf('e')).toBe(await host.stampOf('c'));
  await writeFile(host.slot('a').rawId, '');
  await rejection(registry.forkSlot('a', 'f'), 'SLOT_TORN');
  expect(await host.slotNames()).toEqual(['a', 'b_1', 'c', 'd_1', 'e']);
  expect(await host.leftovers()).toEqual([]);
});

test('an image that is open is forked, unless that is refused', async () => {
  const host = await Host.in(inject('scratch'));
  await host.addTemplate('debian', 'bytes');
  await host.registry.cloneForVm('parent', 'debian', WRITABLE);
  const vmm = await open(host.slot('parent').image, 'r+');
  await vmm.write('later', 0);
  await rejection(host.registry.forkSlot('parent', 'child', { refuseInUse: true }), 'SLOT_IN_USE');
  expect(await host.slotNames()).toEqual(['parent']);
  const { path } = await host.registry.forkSlot('parent', 'child');
  expect(await readFile(path, 'utf8')).toBe('later');
  await vmm.close();
  await host.registry.forkSlot('parent', 'another', { refuseInUse: true });
});

test('a parent that is written to while it is copied: SOURCE_CHANGED, and nothing is left', async () => {
  const host = await Host.in(filesystemNamed('ext4').path);
  await host.addTemplate('debian', Buffer.alloc(48 * MiB, 'x'));
  await host.registry.cloneForVm('parent', 'debian', WRITABLE);
  const vmm = await open(host.slot('parent').image, 'r+');
  let writing = true;
  const writer = (async () => {
    for (let i = 0; writing; i++) await vmm.write(`${i}`, 0);
  })();
  await rejection(host.registry.forkSlot('parent', 'child'), 'SOURCE_CHANGED');
  writing = false;
  await writer;
  await vmm.close();
  expect(await host.slotNames()).toEqual(['parent']);
  expect(await host.leftovers()).toEqual([]);
});

test('no parent, a parent of another id, a torn one, a slot that is there: typed errors, and both stay as they were', async () => {
  const host = await Host.in(inject('scratch'));
  const { registry } = host;
  await host.addTemplate('debian', 'bytes');
  await rejection(registry.forkSlot('parent', 'child'), 'SLOT_NOT_FOUND');
  await registry.cloneForVm('a/b', 'debian', WRITABLE);
  await rejection(registry.forkSlot('a_b', 'child'), 'VM_ID_COLLISION');
  await registry.cloneForVm('there', 'debian', WRITABLE);
  await write(host.slot('there').image, 'MINE!');
  await rejection(registry.forkSlot('a/b', 'there'), 'SLOT_EXISTS');
  await rejection(registry.forkSlot('there', 'there'), 'SLOT_EXISTS');
  // "Release it first" would take another VM's disk away, or be refused.
  await rejection(registry.forkSlot('there', 'a.b'), 'VM_ID_COLLISION');
  await writeFile(join(host.clonesDir, 'notes'), 'precious');
  await rejection(registry.forkSlot('there', 'notes'), 'SLOT_INVALID');
  await registry.snapshotSlot('there', 'paused');
  await rejection(registry.restoreSnapshot('paused', 'a.b'), 'VM_ID_COLLISION');
  await rejection(registry.restoreSnapshot('paused', 'notes'), 'SLOT_INVALID');
  await rm(join(host.clonesDir, 'notes'));
  expect(await readFile(host.slot('there').image, 'utf8')).toBe('MINE!');
  execFileSync('truncate', ['-s0', host.slot('there').stamp]);
  await rejection(registry.forkSlot('there', 'child'), 'SLOT_TORN');
  await rejection(registry.forkSlot('a/b', ''), 'INVALID_VM_ID');
  await rejection(registry.forkSlot('a/b', 'child', { writable: true } as never), 'INVALID_ARGUMENT');
  await rejection(registry.forkSlot('a/b', 'child', { signal: AbortSignal.abort() }), 'ABORT_ERR');
  expect(await host.slotNames()).toEqual(['a_b', 'there']);
});

test('a durable fork is flushed, and a hundred at once of one parent are a hundred slots', async () => {
  const host = await Host.in(filesystemNamed('XFS').path);
  await host.addTemplate('debian', Buffer.alloc(MiB, 'x'));
  await host.registry.cloneForVm('parent', 'debian', WRITABLE);
  await host.registry.forkSlot('parent', 'durable', { durable: true });
  const ids = Array.from({ length: 100 }, (_, i) => `child-${i}`);
  const forks = await Promise.all(ids.map((id) => host.registry.forkSlot('parent', id)));
  expect(new Set(forks.map(({ strategy }) => strategy))).toEqual(new Set(['reflink']));
  expect(await host.slotNames()).toHaveLength(102);
});

test('a parent that is shorter or longer than its template is torn, however often it was forked before', async () => {
  const host = await Host.in(filesystemNamed('XFS').path);
  await host.addTemplate('debian', 'debian'.repeat(20_000));
  const { path } = await host.registry.cloneForVm('parent', 'debian', WRITABLE);
  for (const id of ['a', 'b']) await host.registry.forkSlot('parent', id);
  for (const sizeBytes of [4096, 10 * MiB]) {
    await truncate(path, sizeBytes);
    for (const registry of [host.registry, host.anotherRegistry()])
      await rejection(registry.forkSlot('parent', 'c'), 'SLOT_TORN');
  }
  expect(await host.slotNames()).toEqual(['a', 'b', 'parent']);
});
