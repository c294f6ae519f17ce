import { execFileSync } from 'node:child_process';
import {
  chmod,
  chown,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { readSuperblock } from '../../src/image/ext4.js';
import type { RecoverReport } from '../../src/index.js';
import { printed, runChild, startChild } from '../fixtures/child.js';
import { exists, snapshot, walk } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { KiB, MiB } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

const WRITABLE = { writable: true } as const;

async function hostWithSlots(...ids: string[]): Promise<Host> {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  for (const id of ids) await host.registry.cloneForVm(id, 'debian', WRITABLE);
  await host.registry.drain();
  return host;
}

test('nothing to do, also without a clones folder', async () => {
  const host = await Host.in();
  expect(await host.registry.recover()).toMatchObject({ stagingRemoved: 0, trashRemoved: 0, tornSlots: [] });
  expect(await exists(host.clonesDir)).toBe(false);
});

test('whole slots, foreign folders and files are left as they are', async () => {
  const host = await hostWithSlots('vm-1', 'vm/2');
  await mkdir(join(host.clonesDir, 'lost_found'));
  await writeFile(join(host.clonesDir, 'lost_found', 'data'), 'precious');
  await writeFile(join(host.clonesDir, 'notes'), 'precious');
  await mkdir(join(host.clonesDir, 'with.dot'));
  const visible = async () =>
    Object.entries(await snapshot(host.clonesDir)).filter(([path]) => !path.startsWith('.microvm-rootfs'));
  const before = await visible();
  expect((await host.registry.recover()).tornSlots).toEqual([]);
  expect(await visible()).toEqual(before);
});

test('a folder with an image and no stamp at all belongs to somebody else', async () => {
  const host = await hostWithSlots('vm-1');
  await mkdir(join(host.clonesDir, 'backup'));
  await writeFile(join(host.clonesDir, 'backup', 'rootfs.ext4'), 'precious');
  expect(await host.registry.recover()).toMatchObject({ tornSlots: [], unstamped: ['backup'] });
  expect(await readFile(join(host.clonesDir, 'backup', 'rootfs.ext4'), 'utf8')).toBe('precious');
});

test('what holds an image and no stamp is refused by all calls alike, with advice that is true', async () => {
  const host = await hostWithSlots('vm-1');
  const { registry } = host;
  await rm(host.slot('vm-1').stamp);
  const calls = [
    () => registry.cloneForVm('vm-1', 'debian', WRITABLE),
    () => registry.forkSlot('vm-1', 'vm-2'),
    () => registry.snapshotSlot('vm-1', 'paused'),
    () => registry.commitSlot('vm-1', 'golden'),
    () => registry.exportTo('vm-1', join(host.root, 'disk')),
  ];
  const told: string[] = [];
  for (const call of calls) told.push((await rejection(call(), 'SLOT_TORN')).message);
  expect(new Set(told).size).toBe(1);
  expect(told[0]).toMatch(/no rootfs\.ext4\.sha256.*move the image away.*release the slot$/);
  expect((await registry.slot('vm-1'))?.health).toBe('unstamped');
  expect(await registry.slotInUse('vm-1')).toBe('unused');
  expect(await registry.release('vm-1')).toBe(true);
});

test('a grow that was cut off in a slot that has lost its image', async () => {
  const host = await hostWithSlots('vm-1', 'whole');
  await writeFile(host.slot('vm-1').newSizeStamp, '5');
  await rm(host.slot('vm-1').image);
  expect(await host.registry.recover()).toMatchObject({ tornSlots: ['vm-1'], settledSlots: ['vm-1'] });
  expect(await host.slotNames()).toEqual(['whole']);
});

const DIGEST = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad';

test.each([
  ['stamp', "sha256sum's line", `${DIGEST}  rootfs.ext4\n`],
  ['stamp', 'the name of the algorithm', `sha256:${DIGEST}`],
  ['stamp', 'a digest in base64', Buffer.from(DIGEST, 'hex').toString('base64')],
  ['stamp', 'part of a digest', DIGEST.slice(0, 12)],
  ['stamp', 'more than any stamp holds', 'x'.repeat(100_000)],
  ['sizeStamp', 'a size with a unit', '64M\n'],
  ['sizeStamp', 'a size in hex', '0x4000000'],
] as const)(
  'a slot whose %s holds %s is named and left alone: another program wrote it',
  async (file, _what, text) => {
    const host = await hostWithSlots('vm-1', 'whole');
    const slot = host.slot('vm-1');
    await writeFile(slot.image, 'written by the VM');
    await writeFile(slot[file], text);
    expect(await host.registry.recover()).toMatchObject({ tornSlots: [], unknown: ['vm-1'] });
    expect(await host.registry.slot('vm-1')).toMatchObject({ health: 'unknown' });
    expect(await host.registry.gc({ keep: [] })).toMatchObject({ released: ['whole'] });
    const error = await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), 'STAMP_INVALID');
    expect(error.path).toBe(slot[file]);
    await rejection(host.registry.forkSlot('vm-1', 'vm-2'), 'STAMP_INVALID');
    await rejection(host.registry.snapshotSlot('vm-1', 'kept'), 'STAMP_INVALID');
    expect(await readFile(slot.image, 'utf8')).toBe('written by the VM');
    expect(await host.registry.release('vm-1')).toBe(true);
  },
);

test('a folder in place of a stamp is nothing that a crash leaves', async () => {
  const host = await hostWithSlots('vm-1');
  await mkdir(host.slot('vm-1').newSizeStamp);
  await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), 'STAMP_INVALID');
  expect(await host.registry.recover()).toMatchObject({ tornSlots: [], unknown: ['vm-1'] });
  expect(await host.slotNames()).toEqual(['vm-1']);
});

test('a disk that was moved away and linked to is nothing that a crash leaves', async () => {
  const host = await hostWithSlots('vm-1', 'whole');
  const { image } = host.slot('vm-1');
  await rename(image, join(host.root, 'moved'));
  await symlink('../../moved', image);
  expect(await host.registry.recover()).toMatchObject({ tornSlots: [], unknown: ['vm-1'] });
  expect(await host.registry.slot('vm-1')).toMatchObject({ health: 'unknown' });
  expect(await host.registry.gc({ keep: [] })).toMatchObject({ released: ['whole'] });
  for (const call of [
    host.registry.cloneForVm('vm-1', 'debian', WRITABLE),
    host.registry.snapshotSlot('vm-1', 'kept'),
  ])
    expect(await rejection(call, 'SLOT_INVALID')).toMatchObject({ path: image });
  expect(await readFile(image, 'utf8')).toBe('debian');
  expect(await host.registry.release('vm-1')).toBe(true);
});

test('what chmod -R did to every slot is no sign that one has lost its raw id', async () => {
  const host = await hostWithSlots('vm-1', 'vm/2');
  execFileSync('chmod', ['-R', '1777', host.clonesDir]);
  expect(await host.registry.recover()).toMatchObject({ tornSlots: [] });
  expect(await host.registry.slot('vm-1')).toMatchObject({ health: 'whole' });
  for (const id of ['vm-1', 'vm/2']) {
    expect(await host.registry.cloneForVm(id, 'debian', WRITABLE)).toMatchObject({ reused: true });
    expect(await host.registry.release(id)).toBe(true);
  }
});

test('a digest in upper case is the same digest', async () => {
  const host = await hostWithSlots('vm-1');
  await writeFile(host.slot('vm-1').stamp, (await host.stampOf('vm-1')).toUpperCase());
  expect(await host.registry.recover()).toMatchObject({ tornSlots: [], unknown: [] });
  const { sha256 } = (await host.registry.stack('debian')) ?? {};
  expect(await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).toMatchObject({
    reused: true,
    sourceSha256: sha256,
  });
  expect(await host.registry.slot('vm-1')).toMatchObject({ health: 'whole', sourceSha256: sha256 });
});

test('an empty folder, such as a mount point, stays until a VM of its name comes; a folder of other things stays then, too', async () => {
  const host = await hostWithSlots('vm-1');
  await mkdir(join(host.clonesDir, 'vm-2'));
  await mkdir(join(host.clonesDir, 'notes', 'deep'), { recursive: true });
  expect(await host.registry.recover()).toMatchObject({ tornSlots: [], tornInUse: [], unknown: [] });
  expect(await host.slotNames()).toEqual(['notes', 'vm-1', 'vm-2']);
  expect(await host.registry.slot('vm-2')).toBeUndefined();
  await rejection(host.registry.cloneForVm('notes', 'debian', WRITABLE), 'SLOT_INVALID');
  await rejection(host.registry.forkSlot('notes', 'vm-3'), 'SLOT_INVALID');
  await rejection(host.registry.release('notes'), 'SLOT_INVALID');
  // A power cut on btrfs can leave a slot so: the same call works.
  expect(await host.registry.cloneForVm('vm-2', 'debian', WRITABLE)).toMatchObject({ reused: false });
  await mkdir(join(host.clonesDir, 'vm-3'));
  expect(await host.registry.forkSlot('vm-2', 'vm-3')).toMatchObject({ vmId: 'vm-3' });
  await mkdir(join(host.clonesDir, 'vm-4'));
  expect(await host.registry.release('vm-4')).toBe(true);
});

test('torn slots are removed and named', async () => {
  const host = await hostWithSlots('a', 'b', 'c', 'd', 'whole');
  await truncate(host.slot('a').stamp, 0);
  await rm(host.slot('b').image);
  await truncate(host.slot('c').image, 3);
  await writeFile(host.slot('d').sizeStamp, '');
  const report = await host.registry.recover();
  expect([...report.tornSlots].sort()).toEqual(['a', 'b', 'c', 'd']);
  expect(await host.slotNames()).toEqual(['whole']);
  expect(await host.leftovers()).toEqual([]);
});

test('a slot that cannot be read does not keep the others from being put in order, and is told in the end', async ({
  skip,
}) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(`${reason}, to become another user`);
  const host = await Host.in();
  await chmod(host.root, 0o755);
  await chmod(await host.addTemplate('debian', 'debian'), 0o644);
  await mkdir(host.clonesDir);
  await chown(host.clonesDir, 65534, 65534);
  const { stdout, stderr } = await runChild(
    `const fs = require('fs');
     const registry = new lib.RootfsRegistry(args);
     const ids = ['a', 'b', 'c', 'd', 'unreadable', 'e', 'f'];
     for (const id of ids) await registry.cloneForVm(id, 'debian', { writable: true });
     await registry.drain();
     for (const id of ids.slice(1)) fs.truncateSync(args.clonesDir + '/' + id + '/rootfs.ext4.sha256');
     fs.chmodSync(args.clonesDir + '/unreadable', 0);
     fs.mkdirSync(args.clonesDir + '/.microvm-rootfs/trash/old');
     await registry.recover().catch((error) => console.log(error instanceof lib.RootfsError, error.code, error.path));
     await registry.close();`,
    { templateDir: host.templateDir, clonesDir: host.clonesDir },
    { uid: 65534 },
  );
  expect([stdout, stderr]).toEqual([`true EACCES ${host.slot('unreadable').path}\n`, '']);
  expect(await host.slotNames()).toEqual(['a', 'unreadable']);
  expect(await host.leftovers()).toEqual([]);
});

test('a torn slot whose raw id is torn too is removed', async () => {
  const host = await hostWithSlots('vm/1');
  await truncate(host.slot('vm_1').rawId, 0);
  const { message } = await rejection(host.registry.release('vm/1'), 'SLOT_TORN');
  expect(message).toMatch(/call recover\(\)/);
  expect(message).not.toMatch(/release the slot/);
  expect((await host.registry.recover()).tornSlots).toEqual(['vm_1']);
});

test.each([
  ['a folder', (path: string) => mkdir(path)],
  ['a link', (path: string) => symlink('vm', path)],
  ['longer than an id can be', (path: string) => writeFile(path, 'x'.repeat(10_000))],
])('a raw id that is %s is no crash’s: recover() leaves the slot', async (_what, make) => {
  const host = await hostWithSlots('vm/1');
  const { rawId } = host.slot('vm_1');
  await rm(rawId);
  await make(rawId);
  await rejection(host.registry.forkSlot('vm/1', 'vm-2'), 'SLOT_TORN');
  expect(await host.registry.recover()).toMatchObject({ tornSlots: [], unknown: ['vm_1'] });
  await rm(rawId, { recursive: true });
  await writeFile(rawId, 'vm/1');
  expect(await host.registry.cloneForVm('vm/1', 'debian', WRITABLE)).toMatchObject({ reused: true });
});

test('a torn slot whose image some process has open is left and named', async () => {
  const host = await hostWithSlots('vm-1');
  await truncate(host.slot('vm-1').stamp, 0);
  const file = await open(host.slot('vm-1').image, 'r+');
  expect(await host.registry.recover()).toMatchObject({ tornSlots: [], tornInUse: ['vm-1'] });
  await file.close();
  expect(await host.registry.recover()).toMatchObject({ tornSlots: ['vm-1'], tornInUse: [] });
});

test('without the template, which tells the length, an image that is not empty is given the benefit of the doubt', async () => {
  const host = await hostWithSlots('vm-1', 'vm-2');
  await truncate(host.slot('vm-1').image, 3);
  await truncate(host.slot('vm-2').image, 0);
  expect((await host.anotherRegistry().recover()).tornSlots).toEqual(['vm-2']);
});

test('twice finds nothing more', async () => {
  const host = await hostWithSlots('vm-1');
  await truncate(host.slot('vm-1').stamp, 0);
  expect((await host.registry.recover()).tornSlots).toEqual(['vm-1']);
  expect(await host.registry.recover()).toMatchObject({ stagingRemoved: 0, trashRemoved: 0, tornSlots: [] });
});

describe('a grow that was cut off while it was published', () => {
  test('is completed if the image was in place already', async () => {
    const host = await hostWithSlots('vm-1');
    const slot = host.slot('vm-1');
    await truncate(slot.image, 100);
    await writeFile(slot.newSizeStamp, '100');
    expect((await host.registry.recover()).settledSlots).toEqual(['vm-1']);
    expect(await readFile(slot.sizeStamp, 'utf8')).toBe('100');
    expect(await exists(slot.newSizeStamp)).toBe(false);
    expect(await host.registry.cloneForVm('vm-1', 'debian')).toMatchObject({ reused: true, sizeBytes: 100 });
  });

  test.each([
    ['not yet', '100'],
    ['and the new stamp is torn', ''],
  ])('is undone if the image was not in place: %s', async (_what, pending) => {
    const host = await hostWithSlots('vm-1');
    const slot = host.slot('vm-1');
    await writeFile(slot.newSizeStamp, pending);
    expect((await host.registry.recover()).settledSlots).toEqual(['vm-1']);
    expect(await exists(slot.newSizeStamp)).toBe(false);
    expect(await exists(slot.sizeStamp)).toBe(false);
    expect(await host.registry.cloneForVm('vm-1', 'debian')).toMatchObject({ reused: true, sizeBytes: 6 });
  });

  test('is undone if the image had that length before, without a file system of that length', async ({
    skip,
  }) => {
    const missing = lacks('resize2fs');
    if (missing !== undefined) skip(missing);
    const host = await Host.in();
    await host.addExt4Template('debian', 8 * MiB);
    await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    const slot = host.slot('vm-1');
    // A grow in place was cut off; then another one was, before it exchanged the images.
    await truncate(slot.image, 64 * MiB);
    await writeFile(slot.newSizeStamp, `${64 * MiB}`);
    expect((await host.registry.recover()).settledSlots).toEqual(['vm-1']);
    expect(await exists(slot.newSizeStamp)).toBe(false);
    expect(await exists(slot.sizeStamp)).toBe(false);
    await rejection(host.registry.cloneForVm('vm-1', 'debian'), 'SLOT_TORN');
    await host.registry.cloneForVmWithSize('vm-1', 'debian', 64 * MiB, WRITABLE);
    expect((await readSuperblock(slot.image))?.sizeBytes).toBe(64 * MiB);
  });

  // Of blocks of 1 KiB, a group has 8 MiB: resize2fs leaves out a last one that is too small for its own tables.
  test.for([64 * MiB, 64 * MiB + 64 * KiB, 64 * MiB + 2 * KiB, 64 * MiB + 1234])(
    'is completed if the image in place was grown to %i bytes',
    async (sizeBytes, { skip }) => {
      const missing = lacks('resize2fs');
      if (missing !== undefined) skip(missing);
      const host = await Host.in();
      await host.addExt4Template('debian', 8 * MiB, ['-b', '1024']);
      await host.registry.cloneForVmWithSize('vm-1', 'debian', sizeBytes, WRITABLE);
      const slot = host.slot('vm-1');
      await rename(slot.sizeStamp, slot.newSizeStamp);
      expect((await host.registry.recover()).settledSlots).toEqual(['vm-1']);
      expect(await readFile(slot.sizeStamp, 'utf8')).toBe(`${sizeBytes}`);
      expect(await exists(slot.newSizeStamp)).toBe(false);
    },
  );

  test('is settled as well by the next clone of the slot', async () => {
    const host = await hostWithSlots('vm-1');
    const slot = host.slot('vm-1');
    await truncate(slot.image, 100);
    await writeFile(slot.newSizeStamp, '100');
    expect(await host.registry.cloneForVm('vm-1', 'debian')).toMatchObject({ reused: true, sizeBytes: 100 });
    expect(await exists(slot.newSizeStamp)).toBe(false);
  });
});

describe('what other processes left in staging', () => {
  const CLONE_AND_WAIT = `
    const registry = new lib.RootfsRegistry(args);
    await registry.cloneForVm('child', 'debian', { writable: true });
    console.log('ready');
    setInterval(() => {}, 1000);
  `;

  test('is swept when they are dead, and left while they live', async () => {
    const host = await hostWithSlots();
    const child = startChild(CLONE_AND_WAIT, { templateDir: host.templateDir, clonesDir: host.clonesDir });
    await printed(child, 'ready');
    expect((await host.registry.recover()).stagingRemoved).toBe(0);
    await host.registry.drain(); // or the sweep that came with opening the folder may be the one that finds it
    const gone = new Promise((resolve) => child.on('close', resolve));
    child.kill('SIGKILL');
    await gone;
    const sessions = () => readdir(join(host.clonesDir, '.microvm-rootfs/staging'));
    // A sweep behind the registry's back may be the one that finds it, so what counts is that it goes.
    for (let i = 0; i < 50 && (await sessions()).length > 1; i++) {
      await host.registry.recover();
      await sleep(20);
    }
    expect(await sessions()).toHaveLength(1);
    expect(await host.slotNames()).toEqual(['child']);
  });

  test('is counted once, also where opening the folder has swept it already', async () => {
    const host = await hostWithSlots('vm-1');
    const dead = join(host.clonesDir, '.microvm-rootfs/staging/dead-session/0');
    await mkdir(dead, { recursive: true });
    const registry = host.anotherRegistry();
    await registry.cloneForVm('vm-2', 'debian', WRITABLE);
    await registry.drain();
    expect((await registry.recover()).stagingRemoved).toBe(1);
    expect((await registry.recover()).stagingRemoved).toBe(0);
  });

  test('is swept behind the first clone of a process', async () => {
    const host = await hostWithSlots('vm-1');
    const dead = join(host.clonesDir, '.microvm-rootfs/staging/dead-session/0');
    await mkdir(dead, { recursive: true });
    await writeFile(join(dead, 'rootfs.ext4'), Buffer.alloc(MiB));
    const registry = host.anotherRegistry();
    await registry.cloneForVm('vm-2', 'debian', WRITABLE);
    await registry.drain();
    expect(await exists(dead)).toBe(false);
  });

  test('a read-only folder in it does not stop the sweep', async () => {
    const host = await hostWithSlots('vm-1');
    const trash = join(host.clonesDir, '.microvm-rootfs/trash/old');
    await mkdir(join(trash, 'locked'), { recursive: true });
    await writeFile(join(trash, 'locked', 'file'), '');
    if (process.getuid?.() === 0) await chmod(join(trash, 'locked'), 0o555);
    await host.registry.recover();
    expect(await walk(trash)).toEqual([]);
  });
});

test('an abort ends it, and tells what was removed until then', async () => {
  const ids = Array.from({ length: 30 }, (_, i) => `vm-${i}`);
  const host = await hostWithSlots(...ids);
  expect((await rejection(host.registry.recover({ signal: AbortSignal.abort() }), 'ABORT_ERR')).report).toBe(
    undefined,
  );
  for (const id of ids) await truncate(host.slot(id).stamp, 0);
  const ending = new AbortController();
  const watching = setInterval(async () => {
    if ((await host.slotNames()).length < ids.length) ending.abort();
  });
  const { report } = await rejection(host.registry.recover({ signal: ending.signal }), 'ABORT_ERR').finally(
    () => clearInterval(watching),
  );
  expect((report as RecoverReport).tornSlots).toHaveLength(ids.length - (await host.slotNames()).length);
  await host.registry.drain();
  expect(await host.leftovers()).toEqual([]);
});

test('half-made stacks and snapshots of dead processes go as well, and nothing is made where there were none', async () => {
  const host = await Host.in();
  const { registry } = host;
  await host.addTemplate('debian', 'bytes');
  await registry.cloneForVm('vm', 'debian', { writable: true });
  expect(await registry.recover()).toMatchObject({ stagingRemoved: 0 });
  expect(await exists(join(host.templateDir, '.microvm-rootfs'))).toBe(false);
  expect(await exists(join(host.clonesDir, '.microvm-rootfs/snapshots'))).toBe(false);
  const dead = [host.templateDir, join(host.clonesDir, '.microvm-rootfs/snapshots')].map((folder) =>
    join(folder, '.microvm-rootfs/staging/dead-session'),
  );
  for (const path of dead) {
    await mkdir(join(path, 'half-made'), { recursive: true });
    await writeFile(join(path, 'half-made', 'rootfs.ext4'), 'half');
  }
  expect(await host.anotherRegistry().recover()).toMatchObject({ stagingRemoved: 2 });
  for (const path of dead) expect(await exists(path)).toBe(false);
});

test('trash of snapshots that stays fails as that of slots does; what may not be written to is not swept', async ({
  skip,
}) => {
  const reason = lacksRoot() ?? lacks('chattr');
  if (reason !== undefined) skip(reason);
  const { registry, clonesDir } = await hostWithSlots('vm-1');
  const { path } = await registry.snapshotSlot('vm-1', 'paused');
  const ours = join(clonesDir, '.microvm-rootfs/snapshots/.microvm-rootfs');
  execFileSync('chattr', ['+i', join(path, 'rootfs.ext4')]);
  onTestFinished(() => void execFileSync('chattr', ['-R', '-i', ours]));
  expect(await registry.removeSnapshot('paused')).toBe(true);
  const error = await rejection(registry.recover(), 'EPERM');
  expect(error.path).toMatch(`${ours}/trash/`);
  execFileSync('chattr', ['+i', ours]);
  expect(await registry.recover()).toMatchObject({ notSwept: [join(ours, '..')] });
});
