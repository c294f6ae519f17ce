// Whether a slot is in use, with real holders: a process, a loop device, QEMU.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chown, mkdir, open, rm, symlink, truncate } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, inject, onTestFinished, test } from 'vitest';
import { RootfsRegistry } from '../../src/index.js';
import { type ChildExit, runChild } from '../fixtures/child.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { holdLease } from '../fixtures/lease.js';
import { rejection } from '../fixtures/rejection.js';
import { findTool, lacks, lacksRoot } from '../fixtures/tools.js';

const WRITABLE = { writable: true } as const;

async function hostWithSlot(folder: string = inject('scratch')): Promise<Host> {
  const host = await Host.in(folder);
  await host.addExt4Template('debian', 16 * MiB);
  await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  return host;
}

/** What holds for a slot whose image somebody has open, and for one that was let go of. */
async function expectUse(host: Host, letGo: () => Promise<void> | void): Promise<void> {
  const { registry } = host;
  expect(await registry.slotInUse('vm-1')).toBe('in-use');
  await rejection(registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB), 'SLOT_IN_USE');
  await rejection(registry.release('vm-1', { refuseInUse: true }), 'SLOT_IN_USE');
  expect(await registry.gc({ keep: [] })).toEqual({ released: [], inUse: ['vm-1'], unknown: [] });
  await letGo();
  expect(await registry.slotInUse('vm-1')).toBe('unused');
  await registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB);
  expect(await registry.gc({ keep: [] })).toEqual({ released: ['vm-1'], inUse: [], unknown: [] });
}

describeEachFilesystem((filesystem) => {
  test('a process that has it open, or nobody; unknown where there are no leases', async () => {
    const host = await hostWithSlot(filesystem.path);
    if ((await host.registry.slotInUse('vm-1')) === 'unknown') {
      expect(filesystem.name).toMatch(/FUSE/);
      expect(await host.registry.gc({ keep: [] })).toMatchObject({ released: [], unknown: ['vm-1'] });
      return;
    }
    const file = await open(host.slot('vm-1').image, 'r');
    await expectUse(host, () => file.close());
  });
});

test('a clone by hardlink is not in use because registries have its template open', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', pattern(MiB));
  const other = new RootfsRegistry(host.registry.config);
  const options = { writable: false };
  for (const id of ['vm-1', 'vm-2', 'vm-3'])
    expect(await host.registry.cloneForVm(id, 'debian', options)).toMatchObject({ strategy: 'hardlink' });
  await other.stacks();
  expect(await host.registry.slotInUse('vm-1')).toBe('unused');
  await host.registry.release('vm-1', { refuseInUse: true });
  const file = await open(host.slot('vm-2').image, 'r');
  expect(await host.registry.gc({ keep: ['vm-2'] })).toMatchObject({ released: [], inUse: ['vm-3'] });
  await file.close();
  expect(await host.registry.gc({ keep: ['vm-2'] })).toEqual({ released: ['vm-3'], inUse: [], unknown: [] });
  await host.registry.forkSlot('vm-2', 'vm-4', { refuseInUse: true });
  expect(host.registry.cloneForVmSync('vm-5', 'debian', options)).toMatchObject({ strategy: 'hardlink' });
  await other.close();
});

test.for<[string, (host: Host) => Promise<unknown>]>([
  ['grow', ({ registry }) => registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB)],
  ['release', ({ registry }) => registry.release('vm-1', { refuseInUse: true })],
  ['fork', ({ registry }) => registry.forkSlot('vm-1', 'fork', { refuseInUse: true })],
  ['commit', ({ registry }) => registry.commitSlot('vm-1', 'committed')],
])('whoever has it open for an instant, to measure or flush it, is no VM: %s', async ([, call]) => {
  const host = await hostWithSlot();
  await host.registry.drain();
  const file = await open(host.slot('vm-1').image, 'r');
  const closed = sleep(30).then(() => file.close());
  await call(host);
  await closed;
});

test('a VMM that holds a lease on its disk', async () => {
  const host = await hostWithSlot();
  const end = await holdLease(host.slot('vm-1').image);
  const again = (options: object) =>
    rejection(host.registry.cloneForVm('vm-1', 'debian', { writable: true, ...options }), 'SLOT_IN_USE');
  await again({ durable: true });
  await again({ mode: 0o640 });
  await expectUse(host, end);
});

test.for([
  ['CAP_LEASE', '-lease', 'in-use', 'SLOT_IN_USE'],
  ['CAP_LEASE and CAP_SETUID', '-lease,-setuid', 'unknown', 'EACCES'],
])(
  'without %s another user’s image is not taken for unused',
  async ([, capabilities, use, code], { skip }) => {
    const reason = lacksRoot();
    if (reason !== undefined) skip(reason);
    const host = await hostWithSlot();
    await host.registry.drain();
    const { image } = host.slot('vm-1');
    await chown(image, 4242, 4242);
    const { templateDir, clonesDir } = host;
    const told = (child: ChildExit) => ({ ...JSON.parse(child.stdout), stderr: child.stderr });
    const inContainer = () =>
      runChild(
        `const registry = new lib.RootfsRegistry(args.config);
       const failed = async (call) => call.then(() => 'done', ({ code }) => code);
       console.log(JSON.stringify({
         use: await registry.slotInUse('vm-1'),
         grow: await failed(registry.cloneForVmWithSize('vm-1', 'debian', 2 ** 25)),
         resize: await failed(lib.resizeExt4Image(args.image, 2 ** 25)),
         commit: await failed(registry.commitSlot('vm-1', 'committed')),
         fork: await failed(registry.forkSlot('vm-1', 'vm-2', { refuseInUse: true })),
         release: await failed(registry.release('vm-1', { refuseInUse: true })),
       }));
       await registry.close();`,
        { config: { templateDir, clonesDir }, image },
        { under: ['setpriv', `--bounding-set=${capabilities}`, `--inh-caps=${capabilities}`] },
      );
    const file = await open(image, 'r+');
    const refused = { grow: code, resize: code, commit: code, fork: code, release: code };
    expect(told(await inContainer())).toMatchObject({ use, ...refused, stderr: '' });
    await file.close();
    const after = told(await inContainer());
    const done = {
      use: 'unused',
      grow: 'done',
      resize: 'done',
      commit: 'done',
      fork: 'done',
      release: 'done',
    };
    expect(after).toMatchObject(use === 'in-use' ? done : { use, ...refused });
  },
);

test('a loop device', async ({ skip }) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(reason);
  const host = await hostWithSlot();
  const losetup = (...args: string[]) => execFileSync('losetup', args, { encoding: 'utf8' }).trim();
  const device = losetup('--find', '--show', host.slot('vm-1').image);
  let attached = true;
  const detach = () => {
    if (attached) losetup('--detach', device);
    attached = false;
  };
  onTestFinished(detach);
  await expectUse(host, async () => {
    detach();
    // The kernel lets go of the file behind losetup's back.
    while ((await host.registry.slotInUse('vm-1')) === 'in-use') await sleep(5);
  });
});

test('QEMU', async ({ skip }) => {
  const reason = lacks('qemu-system-x86_64');
  if (reason !== undefined) skip(reason);
  const host = await hostWithSlot();
  const qemu = startPaused(host.slot('vm-1').image);
  await started(qemu);
  await expectUse(host, async () => {
    qemu.kill();
    await once(qemu, 'exit');
  });
});

/** A VM that has its disk and does not run. Its monitor greets whoever talks to it when all is set up. */
function startPaused(image: string): ChildProcess {
  const drive = `if=none,id=disk,file=${image},format=raw`;
  const args = ['-S', '-M', 'q35,accel=tcg', '-m', '64', '-nodefaults', '-display', 'none', '-qmp', 'stdio'];
  const qemu = spawn(findTool('qemu-system-x86_64') ?? '', [
    ...args,
    '-drive',
    drive,
    '-device',
    'virtio-blk-pci,drive=disk',
  ]);
  onTestFinished(() => {
    qemu.kill('SIGKILL');
  });
  return qemu;
}

async function started(qemu: ChildProcess): Promise<void> {
  const [greeting] = (await once(qemu.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
  expect(greeting.toString()).toContain('"QMP"');
}

test('a slot that is none, or another id’s, says so', async () => {
  const host = await hostWithSlot();
  await rejection(host.registry.slotInUse('vm-2'), 'SLOT_NOT_FOUND');
  await rejection(host.registry.slotInUse('vm/1'), 'SLOT_NOT_FOUND');
  await rejection(host.registry.slotInUse(''), 'INVALID_VM_ID');
  await host.registry.cloneForVm('a/b', 'debian', WRITABLE);
  await rejection(host.registry.slotInUse('a_b'), 'VM_ID_COLLISION');
  expect(await host.registry.slotInUse('a/b')).toBe('unused');
  await symlink('vm-1', `${host.clonesDir}/link`);
  await rejection(host.registry.slotInUse('link'), 'SLOT_INVALID');
  await mkdir(`${host.clonesDir}/empty`);
  await rejection(host.registry.slotInUse('empty'), 'SLOT_NOT_FOUND');
  await truncate(host.slot('a_b').rawId, 0);
  await rejection(host.registry.slotInUse('a/b'), 'SLOT_TORN');
});

test.each(['nowhere', 'rootfs.ext4'])('nobody has a link to %s open, in an image’s place', async (target) => {
  const host = await hostWithSlot();
  const { image } = host.slot('vm-1');
  await rm(image);
  await symlink(target, image);
  expect(await host.registry.slotInUse('vm-1')).toBe('unused');
  expect(await host.registry.slot('vm-1')).toMatchObject({ health: 'unknown', use: 'unused' });
});
