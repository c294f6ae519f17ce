// What may and may not be done to the slot of a VM that runs.
import { mkdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { exists } from '../fixtures/files.js';
import { faultsOf, readInside } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { bootsVms, hostWithGuest, STACK, TEMPLATE_BYTES, TIMEOUT } from './guest.js';
import { boot, Vm } from './vm.js';

const XFS = filesystemNamed('XFS');
bootsVms(XFS);

const WRITABLE = { writable: true } as const;

test(
  'a slot whose VM runs is not grown, collected, committed, or released by who asks first',
  TIMEOUT,
  async () => {
    const host = await hostWithGuest(XFS);
    const { registry } = host;
    const vm = new Vm(
      await registry.cloneForVm('vm', STACK, WRITABLE),
      'echo up; read -r word; echo $word >/said',
    );
    await vm.printed('up');
    expect(await registry.slotInUse('vm')).toBe('in-use');
    await rejection(registry.cloneForVmWithSize('vm', STACK, 2 * TEMPLATE_BYTES), 'SLOT_IN_USE');
    await rejection(registry.release('vm', { refuseInUse: true }), 'SLOT_IN_USE');
    await rejection(registry.commitSlot('vm', 'golden'), 'SLOT_IN_USE');
    await rejection(registry.forkSlot('vm', 'fork', { refuseInUse: true }), 'SLOT_IN_USE');
    expect(await registry.gc({ keep: [] })).toEqual({ released: [], inUse: ['vm'], unknown: [] });
    expect((await stat(host.slot('vm').image)).size).toBe(TEMPLATE_BYTES);
    // None of it is noticed by the guest.
    vm.say('hello');
    await vm.done();
    expect(await readInside(host.slot('vm').image, '/said')).toBe('hello\n');
    expect(await registry.slotInUse('vm')).toBe('unused');
    // Stopped, the same slot can be grown, and keeps what its VM has written.
    const grown = await registry.cloneForVmWithSize('vm', STACK, 2 * TEMPLATE_BYTES);
    expect(await faultsOf(grown.path)).toBe('');
    expect(await readInside(grown.path, '/said')).toBe('hello\n');
  },
);

test(
  'a slot that is released under its VM: the VM goes on, and the id’s next slot is another disk',
  TIMEOUT,
  async () => {
    const host = await hostWithGuest(XFS);
    const { registry } = host;
    const vm = new Vm(
      await registry.cloneForVm('vm', STACK, WRITABLE),
      `echo first >/marker; sync; echo up; read -r word
     dd if=/dev/urandom of=/more bs=1M count=8 2>/dev/null; sha256sum /more >/sum; sync
     echo 3 >/proc/sys/vm/drop_caches
     sha256sum -c /sum; cat /marker`,
    );
    await vm.printed('up');
    expect(await registry.release('vm')).toBe(true);
    await registry.drain();
    expect(await exists(host.slot('vm').path)).toBe(false);
    const next = await registry.cloneForVm('vm', STACK, WRITABLE);
    expect(next.reused).toBe(false);
    vm.say('go on');
    expect(await vm.done()).toBe('up\n/more: OK\nfirst');
    expect(await faultsOf(next.path)).toBe('');
    expect(await readInside(next.path, '/marker')).toBe('');
  },
);

test('a VM that is jailed with an exported image writes to its slot', TIMEOUT, async () => {
  const host = await hostWithGuest(XFS);
  const { registry } = host;
  const disk = await registry.cloneForVm('vm', STACK, WRITABLE);
  const jail = join(host.root, 'jail');
  await mkdir(jail);
  const exported = await registry.exportTo('vm', join(jail, 'rootfs.ext4'));
  expect(exported.strategy).toBe('hardlink');
  await boot(disk, 'echo "from the jail" >/marker', { path: exported.path });
  expect(await readInside(disk.path, '/marker')).toBe('from the jail\n');
  expect(await faultsOf(disk.path)).toBe('');
});
