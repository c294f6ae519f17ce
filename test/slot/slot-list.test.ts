// Listing and inspecting slots, and what they hold on disk.
import { execFileSync } from 'node:child_process';
import { mkdir, open, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, onTestFinished, test, vi } from 'vitest';
import { native } from '../../src/addon/native.js';
import type { SlotInfo } from '../../src/index.js';
import { describeEachFilesystem, filesystemNamed } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';

const WRITABLE = { writable: true } as const;

async function listed(host: Host, registry = host.registry): Promise<SlotInfo[]> {
  const slots: SlotInfo[] = [];
  for await (const slot of registry.slots()) slots.push(slot);
  return slots.sort((a, b) => (a.vmId < b.vmId ? -1 : 1));
}

describeEachFilesystem((filesystem) => {
  test('every slot is listed with its raw id, stack and size; and one by itself with how it was made', async () => {
    const host = await Host.in(filesystem.path);
    await host.addExt4Template('debian', 16 * MiB);
    await host.registry.cloneForVm('plain', 'debian', WRITABLE);
    await host.registry.cloneForVm('a/b', 'debian', WRITABLE);
    await host.registry.cloneForVmWithSize('grown', 'debian', 32 * MiB);
    const strategy = filesystem.reflinks ? 'reflink' : 'copy';
    expect(await host.registry.slot('a/b')).toMatchObject({ rawId: 'a/b', strategy });
    const sourceSha256 = await host.stampOf('plain');
    const common = { health: 'whole', stack: 'debian', sourceSha256 };
    for (const registry of [host.registry, host.anotherRegistry()]) {
      const slots = await listed(host, registry);
      expect(slots).toMatchObject([
        { vmId: 'a_b', rawId: 'a/b', sizeBytes: 16 * MiB, grown: false, ...common },
        { vmId: 'grown', rawId: 'grown', sizeBytes: 32 * MiB, grown: true, ...common },
        { vmId: 'plain', rawId: 'plain', path: host.slot('plain').image, grown: false, ...common },
      ]);
      for (const { createdAt } of slots)
        expect(Math.abs(Date.now() - createdAt.getTime())).toBeLessThan(60_000);
    }
  });

  test('a slot that is a hardlink of its template is told apart', async () => {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('alpine', 'x'.repeat(8192));
    const { strategy } = await host.registry.cloneForVm('vm', 'alpine', { writable: false });
    expect(await host.registry.slot('vm')).toMatchObject({ strategy, outdated: false });
  });

  test('usage counts what clones share once', async () => {
    const host = await Host.in(filesystem.path);
    const data = Buffer.alloc(4 * MiB, 'x');
    await host.addTemplate('debian', data);
    for (const id of ['a', 'b', 'c']) await host.registry.cloneForVm(id, 'debian', WRITABLE);
    execFileSync('sync', ['-f', host.clonesDir]);
    const report = await host.registry.usage();
    expect(report).toMatchObject({ slots: 3, stacks: [{ stack: 'debian', slots: 3 }] });
    expect(report.filesystem?.sizeBytes).toBeGreaterThan(report.filesystem?.availableBytes ?? Number.NaN);
    const [debian] = report.stacks as [(typeof report.stacks)[0]];
    expect(debian.totalBytes).toBe(report.totalBytes);
    // Of files on FUSE and tmpfs st_blocks is all that is known; small differences are the file system's own.
    const copies = filesystem.reflinks ? 1 : 4;
    expect(report.totalBytes / data.length).toBeCloseTo(copies, 0);
    expect(debian.aloneBytes / data.length).toBeCloseTo(filesystem.reflinks ? 0 : 3, 0);
  });
});

test('what a guest wrote is its slot’s alone, and releasing the slot gives it back', async () => {
  for (const name of ['XFS', 'btrfs']) {
    const host = await Host.in(filesystemNamed(name).path);
    await host.addTemplate('debian', Buffer.alloc(8 * MiB, 'x'));
    await host.registry.cloneForVm('vm', 'debian', WRITABLE);
    expect(await host.registry.slot('vm')).toMatchObject({ aloneBytes: 0, sharedBytes: 8 * MiB });
    const image = await open(host.slot('vm').image, 'r+');
    await image.write(Buffer.alloc(2 * MiB, 'y'), 0, 2 * MiB, MiB);
    await image.sync();
    await image.close();
    expect(await host.registry.slot('vm')).toMatchObject({
      aloneBytes: 2 * MiB,
      sharedBytes: 6 * MiB,
      strategy: 'reflink',
    });
    expect((await host.registry.usage()).totalBytes).toBe(10 * MiB);
  }
});

test('of two stacks with the same bytes each slot knows its own, also in the pool and after a restart', async () => {
  const host = await Host.in(filesystemNamed('XFS').path);
  for (const stack of ['first', 'second']) await host.addTemplate(stack, 'the same bytes');
  const clone = async (registry: typeof host.registry, round: number) => {
    for (const stack of ['first', 'second']) await registry.cloneForVm(`${stack}-${round}`, stack, WRITABLE);
  };
  await clone(host.registry, 1);
  await clone(host.anotherRegistry(), 2);
  await host.registry.prewarm('second', { count: 2 });
  expect(await host.registry.cloneForVm('second-3', 'second', WRITABLE)).toMatchObject({ pooled: true });
  expect(host.registry.cloneForVmSync('second-4', 'second', WRITABLE)).toMatchObject({ reused: false });
  for (const { vmId, stack } of await listed(host, host.anotherRegistry()))
    expect(vmId.startsWith(`${stack}-`)).toBe(true);
});

test('a slot knows its stack after the template was replaced, and is outdated', async () => {
  const host = await Host.in(inject('scratch'));
  await host.addTemplate('debian', 'old');
  await host.registry.cloneForVm('vm', 'debian', WRITABLE);
  expect(await host.registry.slot('vm')).toMatchObject({ stack: 'debian', outdated: false, use: 'unused' });
  await host.addTemplate('debian', 'new');
  // Nobody has looked at the new one yet, and telling of a slot hashes nothing.
  expect(await host.registry.slot('vm')).toMatchObject({ stack: 'debian', outdated: undefined });
  await host.registry.stack('debian');
  expect(await host.registry.slot('vm')).toMatchObject({ stack: 'debian', outdated: true });
  await rm(join(host.templateDir, 'debian'), { recursive: true });
  expect(await host.anotherRegistry().slot('vm')).toMatchObject({ stack: 'debian', outdated: true });
});

test('slots of another program tell their stack by the digest, if any stack is known to have had it', async () => {
  const host = await Host.in(inject('scratch'));
  await host.addTemplate('debian', 'bytes');
  await host.registry.cloneForVm('ours', 'debian', WRITABLE);
  const place = async (id: string, sha256: string) => {
    await mkdir(host.slot(id).path);
    await writeFile(host.slot(id).image, 'bytes');
    await writeFile(host.slot(id).stamp, sha256);
  };
  await place('theirs', await host.stampOf('ours'));
  await place('unheard-of', 'a'.repeat(64));
  expect(await listed(host)).toMatchObject([{ stack: 'debian' }, { stack: 'debian' }, { stack: undefined }]);
  expect((await host.registry.usage()).stacks).toMatchObject([
    { stack: undefined, slots: 1 },
    { stack: 'debian', slots: 2 },
  ]);
});

test('foreign files are left out; slots that are not whole say so', async () => {
  const host = await Host.in(inject('scratch'));
  await host.addTemplate('debian', 'bytes');
  for (const id of ['torn', 'unstamped', 'whole']) await host.registry.cloneForVm(id, 'debian', WRITABLE);
  await host.registry.drain();
  await truncate(host.slot('torn').stamp);
  await rm(host.slot('unstamped').stamp);
  await writeFile(join(host.clonesDir, 'a-file'), '');
  await mkdir(join(host.clonesDir, 'a-folder'));
  await writeFile(join(host.clonesDir, 'a-folder', 'theirs'), '');
  await symlink('whole', join(host.clonesDir, 'a-link'));
  execFileSync('mkfifo', [join(host.clonesDir, 'a-fifo')]);
  const health = (await listed(host)).map(({ vmId, health }) => [vmId, health]);
  expect(health).toEqual([
    ['torn', 'torn'],
    ['unstamped', 'unstamped'],
    ['whole', 'whole'],
  ]);
  expect(await host.registry.slot('torn')).toMatchObject({ health: 'torn', sourceSha256: undefined });
  expect(await host.registry.slot('a-folder')).toBeUndefined();
});

test('an image that is shorter than its template is torn, in the next process too', async () => {
  const host = await Host.in(inject('scratch'));
  await host.addTemplate('debian', 'sixteen bytes...');
  for (const id of ['cut', 'whole']) await host.registry.cloneForVm(id, 'debian', WRITABLE);
  await host.registry.drain();
  await truncate(host.slot('cut').image, 5);
  for (const registry of [host.registry, host.anotherRegistry()]) {
    expect(await listed(host, registry)).toMatchObject([{ health: 'torn' }, { health: 'whole' }]);
    expect(await registry.slot('cut')).toMatchObject({ health: 'torn', sizeBytes: 5 });
    expect(await registry.slot('whole')).toMatchObject({ health: 'whole' });
  }
});

test('no folder, no slot: nothing is listed, told, or made', async () => {
  const host = await Host.in(inject('scratch'));
  expect(await listed(host)).toEqual([]);
  expect(await host.registry.slot('vm')).toBeUndefined();
  expect(await host.registry.usage()).toMatchObject({
    stacks: [],
    slots: 0,
    totalBytes: 0,
    filesystem: undefined,
  });
  expect(await host.slotNames()).toEqual([]);
  await rejection(host.registry.slot(''), 'INVALID_VM_ID');
});

test('another id’s slot is not told', async () => {
  const host = await Host.in(inject('scratch'));
  await host.addTemplate('debian', 'bytes');
  await host.registry.cloneForVm('a/b', 'debian', WRITABLE);
  await rejection(host.registry.slot('a_b'), 'VM_ID_COLLISION');
});

test('listing ends when its signal says so, or its reader has seen enough', async () => {
  const host = await Host.in(inject('scratch'));
  await host.addTemplate('debian', 'bytes');
  const requests = Array.from({ length: 600 }, (_, i) => ({
    vmId: `vm-${i}`,
    stack: 'debian',
    options: WRITABLE,
  }));
  await host.registry.cloneMany(requests);
  const controller = new AbortController();
  let seen = 0;
  const reading = (async () => {
    for await (const _ of host.registry.slots({ signal: controller.signal })) {
      if (++seen === 10) controller.abort();
    }
  })();
  await rejection(reading, 'ABORT_ERR');
  expect(seen).toBeLessThan(600);
  for await (const { vmId } of host.registry.slots()) {
    expect(vmId).toMatch(/^vm-/);
    break;
  }
  expect(await listed(host)).toHaveLength(600);
});

test('of all listings at once, two read slots, so that other work has threads', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  const addon = native();
  const survey = addon.surveySlots.bind(addon);
  let running = 0;
  let most = 0;
  vi.spyOn(addon, 'surveySlots').mockImplementation(async (...args) => {
    most = Math.max(most, ++running);
    return survey(...args).finally(() => running--);
  });
  onTestFinished(() => void vi.restoreAllMocks());
  const all = await Promise.all(Array.from({ length: 64 }, () => listed(host)));
  expect(all.map(({ length }) => length)).toEqual(Array(64).fill(1));
  expect(most).toBe(2);
});
