// A VM's disk is its own: as large as asked for, kept between boots, seen by no other VM and not by the template.
import { expect, test } from 'vitest';
import { hashFile, type VmRootfs } from '../../src/index.js';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { faultsOf, GiB } from '../fixtures/images.js';
import { bootsVms, hostWithGuest, STACK, TEMPLATE_BYTES, TIMEOUT } from './guest.js';
import { boot, Vm } from './vm.js';

const XFS = filesystemNamed('XFS');
bootsVms(XFS);

test('a guest that panics or whose script fails is not taken for one that went well', TIMEOUT, async () => {
  const { registry } = await hostWithGuest(XFS);
  const [panics, fails] = await Promise.all(
    ['panics', 'fails'].map((id) => registry.cloneForVm(id, STACK, { writable: true })),
  );
  const outcomes = await Promise.allSettled([
    boot(panics as VmRootfs, 'echo c >/proc/sysrq-trigger'),
    boot(fails as VmRootfs, 'echo before; false; echo after'),
  ]);
  const logs = outcomes.map((outcome) => (outcome.status === 'rejected' ? String(outcome.reason) : ''));
  expect(logs[0]).toMatch(/Kernel panic - not syncing: sysrq/);
  expect(logs[1]).toMatch(/before\nguest: ended with status 1/);
});

test('the guest has the space that was asked for, and can fill it', TIMEOUT, async () => {
  const { registry } = await hostWithGuest(XFS);
  const asked = 2 * GiB;
  const disk = await registry.cloneForVmWithSize('vm', STACK, asked);
  expect(disk.strategy).toBe('reflink');
  const printed = await boot(
    disk,
    // More than the template could hold.
    `df -k / | tail -n 1
     dd if=/dev/zero of=/filled bs=1M count=80 2>/dev/null
     blockdev --getsize64 /dev/vda
     rm /filled`,
  );
  const [df = '', device] = printed.split('\n');
  const kilobytes = Number(df.trim().split(/\s+/)[1]);
  expect(device).toBe(`${asked}`);
  // What df shows is without the filesystem's own tables.
  expect(kilobytes * 1024).toBeGreaterThan(asked * 0.95);
  expect(kilobytes * 1024).toBeLessThanOrEqual(asked);
  expect(await faultsOf(disk.path)).toBe('');
});

test(
  'what a guest writes is there at its next boot, in no other slot, and not in the template',
  TIMEOUT,
  async () => {
    const host = await hostWithGuest(XFS);
    const { registry } = host;
    const template = host.template(STACK);
    const digest = await hashFile(template);
    const own = await registry.cloneForVm('own', STACK, { writable: true });
    const other = await registry.cloneForVm('other', STACK, { writable: true });
    expect(own.sizeBytes).toBe(TEMPLATE_BYTES);
    await boot(own, 'echo "written by own" >/marker');
    const again = await registry.cloneForVm('own', STACK, { writable: true });
    expect(again).toMatchObject({ reused: true, path: own.path });
    expect(await boot(again, 'cat /marker')).toBe('written by own');
    expect(await boot(other, 'test ! -e /marker; cat /etc/hostname')).toBe('guest');
    expect(await hashFile(template)).toBe(digest);
    expect(await registry.stack(STACK)).toMatchObject({ sha256: digest });
  },
);

test('two VMs of one template run at once and do not see each other', TIMEOUT, async () => {
  const host = await hostWithGuest(XFS);
  const { registry } = host;
  const digest = await hashFile(host.template(STACK));
  const names = ['left', 'right'];
  const disks = await Promise.all(names.map((name) => registry.cloneForVm(name, STACK, { writable: true })));
  const vms = disks.map(
    (disk, i) =>
      new Vm(
        disk,
        `echo ${names[i]} >/${names[i]}; echo ${names[i]} >/same; sync
         echo written; read -r word
         echo 3 >/proc/sys/vm/drop_caches
         ls / | grep -E 'left|right'; cat /same`,
      ),
  );
  // Both have written before either looks.
  await Promise.all(vms.map((vm) => vm.printed('written')));
  for (const vm of vms) vm.say('look');
  const printed = await Promise.all(vms.map((vm) => vm.done()));
  expect(printed).toEqual(['written\nleft\nleft', 'written\nright\nright']);
  for (const { path } of disks) expect(await faultsOf(path)).toBe('');
  expect(await hashFile(host.template(STACK))).toBe(digest);
});
