// VMs on slots that were made of other VMs' disks: forks and restored snapshots, of the disk alone and together with
// the memory.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { faultsOf } from '../fixtures/images.js';
import { bootsVms, hostWithGuest, STACK, TIMEOUT } from './guest.js';
import { boot, Vm } from './vm.js';

const XFS = filesystemNamed('XFS');
bootsVms(XFS);

const WRITABLE = { writable: true } as const;

test(
  'a VM on the fork of a paused VM has what that had written; then each goes its own way',
  TIMEOUT,
  async () => {
    const { registry } = await hostWithGuest(XFS);
    const parent = new Vm(
      await registry.cloneForVm('parent', STACK, WRITABLE),
      `echo shared >/marker; sync; echo up; read -r word
     echo 3 >/proc/sys/vm/drop_caches; ls /; cat /marker`,
    );
    await parent.printed('up');
    const monitor = await parent.monitor();
    await monitor.ask('stop');
    const fork = await registry.forkSlot('parent', 'child');
    expect(fork.strategy).toBe('reflink');
    expect(await boot(fork, 'cat /marker; echo child >/marker; echo child >/of-the-child')).toBe('shared');
    await monitor.ask('cont');
    parent.say('look');
    const printed = await parent.done();
    expect(printed).toMatch(/shared$/);
    expect(printed).not.toContain('of-the-child');
  },
);

test('a VM on a snapshot that was restored has the disk of that moment', TIMEOUT, async () => {
  const host = await hostWithGuest(XFS);
  const { registry } = host;
  const disk = await registry.cloneForVm('vm', STACK, WRITABLE);
  await boot(disk, 'echo then >/marker');
  const state = join(host.root, 'state');
  await writeFile(state, 'what the VMM knows');
  const snapshot = await registry.snapshotSlot('vm', 'moment', { with: [state] });
  expect(snapshot.files.map(({ name }) => name)).toEqual(['rootfs.ext4', 'state']);
  await registry.release('vm');
  const restored = await registry.restoreSnapshot('moment', 'restored');
  expect(await boot(restored, 'cat /marker; echo later >/marker')).toBe('then');
  await registry.verifySnapshot('moment');
});

test('a VM that is snapshot with its memory goes on from there, twice', TIMEOUT, async () => {
  const host = await hostWithGuest(XFS);
  const { registry } = host;
  const vm = new Vm(
    await registry.cloneForVm('vm', STACK, WRITABLE),
    // Not flushed: a part of the disk is in the guest's memory alone.
    `known=$(cat /proc/sys/kernel/random/uuid); echo $known >/marker; echo up; read -r word
     sync; echo 3 >/proc/sys/vm/drop_caches
     test "$(cat /marker)" = $known; echo $word`,
  );
  await vm.printed('up');
  const monitor = await vm.monitor();
  await monitor.ask('stop');
  const memory = join(host.root, 'memory');
  await monitor.saveMemory(memory);
  await registry.snapshotSlot('vm', 'moment', { with: [memory] });
  await vm.kill();
  for (const id of ['once', 'twice']) {
    const { path, files } = await registry.restoreSnapshot('moment', id);
    const restored = new Vm({ path }, '', { waits: true });
    await restored.goOn(files[0] as string);
    restored.say(id);
    expect(await restored.done()).toBe(id);
    expect(await faultsOf(path)).toBe('');
  }
});
