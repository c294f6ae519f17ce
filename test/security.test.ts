// What docs/security.md says of a VMM: a process of another user, which owns its image and nothing else.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, mkdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { describeEachFilesystem } from './fixtures/each-filesystem.js';
import { allocatedBytes, exists, sha256Of, snapshot } from './fixtures/files.js';
import { Host } from './fixtures/host.js';
import { MiB } from './fixtures/images.js';
import { attempts, end, JAILED, jail, VMM, vmm } from './fixtures/jail.js';
import { holdLease } from './fixtures/lease.js';
import { rejection } from './fixtures/rejection.js';

const WRITABLE = { writable: true } as const;

describeEachFilesystem(
  (filesystem) => {
    test('a VMM can do what it likes with its own image, and nothing with anything else', async ({
      skip,
    }) => {
      const { host, own } = await jail(skip, filesystem.path);
      await host.registry.cloneForVm('vm-2', 'debian', { ...JAILED, owner: { uid: 4243, gid: 4243 } });
      await host.registry.prewarm('debian', { count: 1 });
      const before = await othersOf(host);

      const done = await attempts(host, own, {
        'write to it': 'fs.writeSync(fs.openSync(image, "r+"), "owned", 4096)',
        'read it': 'fs.readFileSync(image)',
        'take its mode away': 'fs.chmodSync(image, 0)',
        'give its mode back': 'fs.chmodSync(image, 0o600)',
        'set its times': 'fs.utimesSync(image, 1, 1)',
        'link it': 'fs.linkSync(image, own + "/kept")',
      });
      expect(done).toEqual(Object.fromEntries(Object.keys(done).map((what) => [what, 'done'])));

      const refused = await attempts(host, own, {
        'give it away': 'fs.chownSync(image, 4243, 4243)',
        'remove it': 'fs.unlinkSync(image)',
        'move it': 'fs.renameSync(image, own + "/taken")',
        'put another in its place': 'fs.renameSync(own + "/kept", slot + "/other")',
        'make a file in its slot': 'fs.writeFileSync(slot + "/rootfs.ext4.id", "a/b")',
        'make a link in its slot': 'fs.symlinkSync("/etc/passwd", slot + "/rootfs.ext4.size")',
        'change its stamp': 'fs.writeFileSync(slot + "/rootfs.ext4.sha256", "0".repeat(64))',
        'remove its stamp': 'fs.unlinkSync(slot + "/rootfs.ext4.sha256")',
        'open its slot to all': 'fs.chmodSync(slot, 0o777)',
        'move its slot': 'fs.renameSync(slot, clones + "/vm-9")',
        'make a slot': 'fs.mkdirSync(clones + "/vm-9")',
        "read another's image": 'fs.readFileSync(clones + "/vm-2/rootfs.ext4")',
        "write another's image": 'fs.openSync(clones + "/vm-2/rootfs.ext4", "r+")',
        "cut another's image": 'fs.truncateSync(clones + "/vm-2/rootfs.ext4", 0)',
        "remove another's image": 'fs.unlinkSync(clones + "/vm-2/rootfs.ext4")',
        'look into our own folder': 'fs.readdirSync(clones + "/.microvm-rootfs")',
        'write in our own folder': 'fs.writeFileSync(clones + "/.microvm-rootfs/digests.json", "{}")',
        'put something into trash': 'fs.mkdirSync(clones + "/.microvm-rootfs/trash/x")',
        'move our own folder': 'fs.renameSync(clones + "/.microvm-rootfs", clones + "/vm-8")',
        'write to the template': 'fs.openSync(template, "r+")',
        'cut the template': 'fs.truncateSync(template, 0)',
        'touch the template': 'fs.utimesSync(template, 1, 1)',
        ...((await linksAreProtected()) ? LINKS : {}),
        'remove the template': 'fs.unlinkSync(template)',
        'replace the template': 'fs.renameSync(own + "/kept", template)',
        'make a stack': 'fs.mkdirSync(templates + "/evil")',
      });
      for (const [what, outcome] of Object.entries(refused))
        expect([what, outcome]).toEqual([what, expect.stringMatching(/^(EACCES|EPERM)$/)]);

      expect(await othersOf(host)).toEqual(before);
      expect(await host.registry.verify()).toMatchObject({ templates: 1, differences: [] });
      await expectUsable(host);
    });

    test('an image that its VMM made shorter is not handed out, grown or kept; while it is open it is left', async ({
      skip,
    }) => {
      const { host, own, image } = await jail(skip, filesystem.path);
      const holder = await vmm(
        host,
        own,
        'fs.truncateSync(image, 4096); globalThis.fd = fs.openSync(image, "r+");',
      );
      await rejection(host.registry.cloneForVm('vm-1', 'debian', JAILED), 'SLOT_TORN');
      await rejection(host.registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB, JAILED), 'SLOT_TORN');
      expect(await host.registry.recover()).toMatchObject({ tornSlots: [], tornInUse: ['vm-1'] });
      expect((await stat(image)).size).toBe(4096);
      await end(holder);
      expect(await host.registry.recover()).toMatchObject({ tornSlots: ['vm-1'], tornInUse: [] });
      await expectUsable(host);
    });

    test('an image that its VMM made longer is handed out and grown only to its own length', async ({
      skip,
    }) => {
      const { host, own, image } = await jail(skip, filesystem.path);
      await end(await vmm(host, own, `fs.truncateSync(image, ${48 * MiB});`));
      await rejection(host.registry.cloneForVm('vm-1', 'debian', JAILED), 'SLOT_TORN');
      await rejection(host.registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB, JAILED), 'SHRINK_REFUSED');
      expect(await host.registry.recover()).toMatchObject({ tornSlots: [], tornInUse: [] });
      const grown = await host.registry.cloneForVmWithSize('vm-1', 'debian', 48 * MiB, JAILED);
      expect([grown.reused, (await stat(image)).size, (await stat(image)).uid]).toEqual([
        true,
        48 * MiB,
        VMM.uid,
      ]);
      await expectUsable(host);
    });

    test('an image that its VMM emptied is its own disk still; growing it fails and changes nothing', async ({
      skip,
    }) => {
      const { host, own, image } = await jail(skip, filesystem.path);
      await end(
        await vmm(
          host,
          own,
          `fs.writeFileSync(image, Buffer.alloc(4096)); fs.truncateSync(image, ${16 * MiB});`,
        ),
      );
      const before = await snapshot(host.slot('vm-1').path);
      expect((await host.registry.cloneForVm('vm-1', 'debian', JAILED)).reused).toBe(true);
      expect(await allocatedBytes(image)).toBeLessThanOrEqual(64 * 1024);
      await rejection(host.registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB, JAILED), 'IMAGE_INVALID');
      expect(await snapshot(host.slot('vm-1').path)).toEqual(before);
      expect(await host.leftovers()).toEqual([]);
      await expectUsable(host);
    });

    test('a mode of 0 and a lease do not keep the scheduler from a slot, and a VMM that has one is in use', async ({
      skip,
    }) => {
      const { host, own, image } = await jail(skip, filesystem.path);
      await end(await vmm(host, own, 'fs.chmodSync(image, 0);'));
      await host.registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB, WRITABLE);
      expect((await stat(image)).mode & 0o777).toBe(0);
      await chmod(image, 0o600);

      const endLease = await holdLease(image, VMM);
      await rejection(host.registry.release('vm-1', { refuseInUse: true }), 'SLOT_IN_USE');
      expect(await host.registry.slotInUse('vm-1')).toBe('in-use');
      expect(await host.registry.gc({ keep: [] })).toMatchObject({ released: [], inUse: ['vm-1'] });
      expect((await host.registry.usage()).slots).toBe(1);
      expect(await host.registry.verify({ clones: true })).toMatchObject({ clones: 0, differences: [] });
      for (const call of [
        () => host.registry.exportTo('vm-1', join(host.root, 'exported')),
        () => host.registry.forkSlot('vm-1', 'vm-2'),
        () => host.registry.snapshotSlot('vm-1', 'snapshot'),
        () => host.registry.commitSlot('vm-1', 'committed'),
      ])
        expect((await rejection(call(), 'SLOT_IN_USE')).path).toBe(image);
      expect((await host.registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB, WRITABLE)).reused).toBe(
        true,
      );
      expect(await host.registry.release('vm-1')).toBe(true);
      await endLease();
      await expectUsable(host);
    });

    test('a VMM that keeps its image open keeps the old bytes, and the next VM of that id does not see them', async ({
      skip,
    }) => {
      const { host, own, image } = await jail(skip, filesystem.path);
      const holder = await vmm(
        host,
        own,
        'globalThis.fd = fs.openSync(image, "r+");',
        'fs.writeSync(fd, "still here", 0);',
      );
      await rejection(host.registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB, JAILED), 'SLOT_IN_USE');
      await rejection(host.registry.release('vm-1', { refuseInUse: true }), 'SLOT_IN_USE');
      expect(await host.registry.release('vm-1')).toBe(true);
      const { sourceSha256 } = await host.registry.cloneForVm('vm-1', 'debian', JAILED);
      await end(holder);
      expect(await sha256Of(image)).toBe(sourceSha256);
      await expectUsable(host);
    });

    test('an image that its VMM has linked elsewhere is never chowned or changed under that name', async ({
      skip,
    }) => {
      const { host, own, image } = await jail(skip, filesystem.path);
      const kept = join(own, 'kept');
      await end(
        await vmm(
          host,
          own,
          'fs.writeSync(fs.openSync(image, "r+"), "mine"); fs.linkSync(image, own + "/kept");',
        ),
      );
      const before = await snapshot(own);
      const other = { uid: 4243, gid: 4243 };
      await rejection(
        host.registry.cloneForVm('vm-1', 'debian', { writable: false, owner: other }),
        'SHARED_INODE',
      );
      const grown = await host.registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB, {
        ...WRITABLE,
        owner: other,
      });
      expect((await stat(image)).uid).toBe(4243);
      expect([grown.reused, await exists(kept)]).toEqual([true, true]);
      expect(await snapshot(own)).toEqual(before);
      await expectUsable(host);
    });

    test('a VMM that locks the folder of its slot makes growing wait for a second, and nothing else', async ({
      skip,
    }) => {
      const { host } = await jail(skip, filesystem.path);
      const { path } = host.slot('vm-1');
      const holder = spawn('flock', [path, 'sh', '-c', 'echo held; cat'], {
        stdio: ['pipe', 'pipe', 'inherit'],
        ...VMM,
      });
      onTestFinished(() => {
        holder.kill('SIGKILL');
      });
      await once(holder.stdout, 'data');
      const signal = AbortSignal.timeout(100);
      await rejection(
        host.registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB, { ...JAILED, signal }),
        'ABORT_ERR',
      );
      expect((await host.registry.cloneForVm('vm-1', 'debian', JAILED)).reused).toBe(true);
      expect(await host.registry.recover()).toMatchObject({ tornSlots: [], settledSlots: [] });
      const grown = host.registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB, JAILED);
      expect(await grown).toMatchObject({ reused: true, sizeBytes: 32 * MiB });
      expect(await host.registry.gc({ keep: [] })).toMatchObject({ released: ['vm-1'] });
      holder.stdin.end();
      await once(holder, 'close');
      await expectUsable(host);
    });
  },
  // One that shares blocks, and one that does not.
  ({ name }) => ['XFS', 'ext4'].includes(name),
);

describeEachFilesystem(
  (filesystem) => {
    test.each([
      ['a symbolic link to a file of root', (path: string, secret: string) => symlink(secret, path)],
      ['a symbolic link to a device', (path: string) => symlink('/dev/zero', path)],
      ['a device', (path: string) => execFileSync('mknod', [path, 'c', '1', '5'])],
      ['a FIFO', (path: string) => execFileSync('mkfifo', [path])],
      ['a folder', (path: string) => mkdir(path)],
    ])(
      'who owns the folder of a slot and puts %s where a file should be has nothing followed or waited for',
      async (_what, make) => {
        const host = await Host.in(filesystem.path);
        const secret = join(host.root, 'secret');
        await writeFile(secret, 'of root', { mode: 0o600 });
        await host.addExt4Template('debian', 16 * MiB);
        const before = await snapshot(host.templateDir);
        for (const name of ['image', 'stamp', 'sizeStamp', 'newSizeStamp', 'rawId'] as const) {
          await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
          const slot = host.slot('vm-1');
          await chown(slot.path, VMM.uid, VMM.gid);
          await rm(slot[name], { force: true });
          await make(slot[name], secret);
          // What no crash leaves may be another program's: its slot is left for whoever owns it.
          const code = name === 'rawId' ? 'SLOT_TORN' : name === 'image' ? 'SLOT_INVALID' : 'STAMP_INVALID';
          for (const options of [JAILED, WRITABLE])
            await rejection(host.registry.cloneForVm('vm-1', 'debian', options), code);
          await rejection(host.registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB, JAILED), code);
          const { uid } = await stat(secret);
          expect([await readFile(secret, 'utf8'), uid]).toEqual(['of root', process.getuid?.()]);
          const report = await host.registry.recover();
          expect([report.tornSlots, report.unknown]).toEqual([[], ['vm-1']]);
          // Of nobody's, as far as can be told: no id releases it.
          if (name === 'rawId') await rm(slot.rawId, { recursive: true });
          await host.registry.release('vm-1');
        }
        expect(await snapshot(host.templateDir)).toEqual(before);
        await expectUsable(host);
      },
    );

    test('who can write to a folder in a slot keeps neither it nor another slot from being removed', async ({
      skip,
    }) => {
      const { host, own } = await jail(skip, filesystem.path);
      const inSlot = join(host.slot('vm-1').path, 'run');
      await mkdir(inSlot);
      await chown(inSlot, VMM.uid, VMM.gid);
      // It stays in that folder, wherever the folder goes, and makes files as fast as it can.
      const fill =
        'process.chdir(slot + "/run"); setTimeout(() => { for (let i = 0; ; i++) { ' +
        'try { fs.closeSync(fs.openSync(String(i), "w")); } ' +
        'catch ({ code }) { if (code !== "ENOSPC") process.exit(0); } } });';
      const filler = await vmm(host, own, fill);
      onTestFinished(() => void filler.kill('SIGKILL'));
      await host.registry.cloneForVm('vm-2', 'debian', JAILED);
      for (const id of ['vm-1', 'vm-2']) await host.registry.release(id);
      await host.registry.recover();
      await host.registry.drain();
      expect(await host.leftovers()).toEqual([]);
      await expectUsable(host);
    });
  },
  ({ name }) => name === 'ext4',
);

const LINKS = {
  "link another's image": 'fs.linkSync(clones + "/vm-2/rootfs.ext4", own + "/stolen")',
  'link the template': 'fs.linkSync(template, own + "/template")',
};

async function linksAreProtected(): Promise<boolean> {
  return (await readFile('/proc/sys/fs/protected_hardlinks', 'utf8')).trim() !== '0';
}

/** All that is not this VM's. */
async function othersOf(host: Host): Promise<object> {
  const { stamp } = host.slot('vm-1');
  return {
    templates: await snapshot(host.templateDir),
    state: await snapshot(join(host.clonesDir, '.microvm-rootfs')),
    sibling: await snapshot(host.slot('vm-2').path),
    stamp: await readFile(stamp, 'utf8'),
  };
}

/** Whatever was done: each id can be had, with the template's bytes, and is gone without a trace. */
async function expectUsable(host: Host): Promise<void> {
  const { registry } = host;
  await registry.release('vm-1');
  const clone = await registry.cloneForVm('vm-1', 'debian', JAILED);
  expect(clone).toMatchObject({ reused: false, sourceSha256: await sha256Of(host.template('debian')) });
  expect(await sha256Of(clone.path)).toBe(clone.sourceSha256);
  await registry.release('vm-1');
  await registry.drain();
  expect(await host.leftovers()).toEqual([]);
  expect((await registry.verify()).differences).toEqual([]);
}
