// Guests that mount their root read-only share one image where there is no reflink: the template itself, by hardlink.
import { stat } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { hashFile } from '../../src/index.js';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { bootsVms, hostWithGuest, STACK, TIMEOUT } from './guest.js';
import { Vm } from './vm.js';

const EXT4 = filesystemNamed('ext4');
bootsVms(EXT4);

test(
  'two read-only guests run at once on hardlinks of one template, and cannot write to it',
  TIMEOUT,
  async () => {
    const host = await hostWithGuest(EXT4);
    const { registry } = host;
    const template = host.template(STACK);
    const before = await stat(template, { bigint: true });
    const digest = await hashFile(template);
    const disks = await Promise.all(
      ['a', 'b'].map((id) => registry.cloneForVm(id, STACK, { writable: false })),
    );
    for (const disk of disks) {
      expect(disk).toMatchObject({ strategy: 'hardlink', sharesTemplateInode: true });
      expect((await stat(disk.path, { bigint: true })).ino).toBe(before.ino);
    }
    // The guest is root and tries as hard as it can. `!` does not end a script of sh -e, so each success says so.
    const script = `
    touch /marker && echo 'wrote a file'
    mount -o remount,rw / && echo 'mounted it for writing'
    echo garbage | dd of=/dev/vda conv=fsync 2>/dev/null && echo 'wrote to the disk'
    cat /etc/hostname /sys/block/vda/ro
    echo running; read -r word`;
    const vms = disks.map((disk) => new Vm(disk, `set +e; ${script}`));
    await Promise.all(vms.map((vm) => vm.printed('running')));
    for (const vm of vms) vm.say('end');
    for (const printed of await Promise.all(vms.map((vm) => vm.done()))) {
      expect(printed).toMatch(/Read-only file system/);
      expect(printed).not.toMatch(/^wrote|^mounted/m);
      expect(printed).toMatch(/guest\n1\nrunning$/);
    }
    const after = await stat(template, { bigint: true });
    expect({ ino: after.ino, mtime: after.mtimeNs }).toEqual({ ino: before.ino, mtime: before.mtimeNs });
    expect(await hashFile(template)).toBe(digest);
  },
);
