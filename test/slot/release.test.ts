import { execFileSync } from 'node:child_process';
import { mkdir, open, readFile, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { exists } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacksRoot } from '../fixtures/tools.js';

const WRITABLE = { writable: true } as const;

async function hostWithSlot(contents: Buffer | string = 'debian'): Promise<Host> {
  const host = await Host.in();
  await host.addTemplate('debian', contents);
  await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  return host;
}

test('resolves to whether there was a slot', async () => {
  const host = await hostWithSlot();
  expect(await host.registry.release('vm-1')).toBe(true);
  expect(await host.registry.release('vm-1')).toBe(false);
  expect(await host.registry.release('never-there')).toBe(false);
});

test.each<[string, (host: Host) => Promise<unknown>]>([
  ['gc', ({ registry }) => registry.gc({ keep: [] })],
  [
    'recover, if the slot is torn',
    async (host) => {
      await truncate(host.slot('vm-1').stamp);
      return host.registry.recover();
    },
  ],
])('what else lies in the folder of a slot goes with it: %s', async (_, remove) => {
  const host = await hostWithSlot();
  const { path } = host.slot('vm-1');
  await writeFile(join(path, 'notes'), 'mine');
  await remove(host);
  expect(await exists(path)).toBe(false);
});

test('what else lies in the folder of a snapshot goes with it', async () => {
  const host = await hostWithSlot();
  await host.registry.snapshotSlot('vm-1', 'before');
  const path = join(host.clonesDir, '.microvm-rootfs/snapshots/before');
  await writeFile(join(path, 'notes'), 'mine');
  expect(await host.registry.removeSnapshot('before')).toBe(true);
  expect(await exists(path)).toBe(false);
});

test('releasing where there is no clones folder makes none', async () => {
  const host = await Host.in();
  expect(await host.registry.release('vm-1')).toBe(false);
  expect(await exists(host.clonesDir)).toBe(false);
});

test('whoever has the image open keeps it until it closes it', async () => {
  const host = await hostWithSlot('still here');
  const file = await open(host.slot('vm-1').image, 'r+');
  expect(await host.registry.release('vm-1')).toBe(true);
  await host.registry.drain();
  expect(await exists(host.slot('vm-1').path)).toBe(false);
  expect(await readFile(file, 'utf8')).toBe('still here');
  await file.close();
});

test('with refuseInUse an image that is open stays', async () => {
  const host = await hostWithSlot();
  const file = await open(host.slot('vm-1').image, 'r+');
  await rejection(host.registry.release('vm-1', { refuseInUse: true }), 'SLOT_IN_USE');
  expect(await exists(host.slot('vm-1').image)).toBe(true);
  await file.close();
  expect(await host.registry.release('vm-1', { refuseInUse: true })).toBe(true);
});

test('a slot made anew right after is a new one', async () => {
  const host = await hostWithSlot();
  for (let i = 0; i < 20; i++) {
    expect(await host.registry.release('vm-1')).toBe(true);
    expect((await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).reused).toBe(false);
  }
});

test('space comes back when drain has resolved', async () => {
  const host = await hostWithSlot(pattern(MiB));
  await host.registry.release('vm-1');
  await host.registry.drain();
  expect(await host.leftovers()).toEqual([]);
});

test('many at once, one each', async () => {
  const host = await hostWithSlot();
  const results = await Promise.all(Array.from({ length: 20 }, () => host.registry.release('vm-1')));
  expect(results.filter(Boolean)).toHaveLength(1);
});

test('an empty folder, which a crash of another program can leave, is taken away', async () => {
  const host = await Host.in();
  await mkdir(host.slot('vm-1').path, { recursive: true });
  expect(await host.registry.release('vm-1')).toBe(true);
  expect(await exists(host.slot('vm-1').path)).toBe(false);
});

test("somebody else's folder is not touched", async () => {
  const host = await Host.in();
  const precious = join(host.slot('vm-1').path, 'precious');
  await mkdir(host.slot('vm-1').path, { recursive: true });
  await writeFile(precious, 'data');
  await rejection(host.registry.release('vm-1'), 'SLOT_INVALID');
  expect(await readFile(precious, 'utf8')).toBe('data');
});

test('nor one in which a folder has the name of the image: no clone is made of it either', async () => {
  const host = await hostWithSlot();
  const precious = join(host.clonesDir, 'backup', 'rootfs.ext4', 'precious');
  await mkdir(dirname(precious), { recursive: true });
  await writeFile(precious, 'data');
  await rejection(host.registry.release('backup'), 'SLOT_INVALID');
  await rejection(host.registry.cloneForVm('backup', 'debian', WRITABLE), 'SLOT_INVALID');
  expect(await host.registry.slot('backup')).toBeUndefined();
  expect(await host.registry.recover()).toMatchObject({ unstamped: [], unknown: [] });
  expect(await host.registry.gc({ keep: [] })).toMatchObject({ released: ['vm-1'] });
  expect(await readFile(precious, 'utf8')).toBe('data');
});

test('nor an empty folder that something is mounted on', async ({ skip }) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(reason);
  const host = await hostWithSlot();
  const folder = join(host.clonesDir, 'mounted');
  await mkdir(folder);
  execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', folder]);
  onTestFinished(() => void execFileSync('umount', ['--lazy', folder]));
  await rejection(host.registry.release('mounted'), 'SLOT_INVALID');
});

test('what others put into a slot goes with it', async () => {
  const host = await hostWithSlot();
  await mkdir(join(host.slot('vm-1').path, 'logs/deep'), { recursive: true });
  await writeFile(join(host.slot('vm-1').path, 'logs/deep/vm.log'), 'log');
  expect(await host.registry.release('vm-1')).toBe(true);
  await host.registry.drain();
  expect(await host.leftovers()).toEqual([]);
});

test('durable release', async () => {
  const host = await hostWithSlot();
  expect(await host.registry.release('vm-1', { durable: true })).toBe(true);
  expect(await exists(host.slot('vm-1').path)).toBe(false);
});

test('of the template nothing goes, hardlinked or not', async () => {
  const host = await hostWithSlot();
  await host.registry.cloneForVm('vm-2', 'debian', { writable: false });
  await host.registry.release('vm-2');
  await host.registry.drain();
  expect(await readFile(host.template('debian'), 'utf8')).toBe('debian');
});

test.each([
  ['an unknown option', { force: true }],
  ['durable that is no boolean', { durable: 1 }],
  ['refuseInUse that is no boolean', { refuseInUse: 'yes' }],
  ['options that are none', null],
])('refuses %s', async (_what, options) => {
  const host = await hostWithSlot();
  await rejection(host.registry.release('vm-1', options as object), 'INVALID_ARGUMENT');
  expect(await exists(host.slot('vm-1').image)).toBe(true);
});
