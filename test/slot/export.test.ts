// A slot's image under another path, as a jailer wants it.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  link,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  stat,
  symlink,
  truncate,
  unlink,
  writeFile,
} from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, inject, onTestFinished, test } from 'vitest';
import { RootfsRegistry } from '../../src/index.js';
import { describeEachFilesystem, filesystemNamed } from '../fixtures/each-filesystem.js';
import { exists } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacksRoot } from '../fixtures/tools.js';

const WRITABLE = { writable: true } as const;

async function hostWithSlot(
  folder: string,
  options: object = WRITABLE,
): Promise<{ host: Host; jail: string }> {
  const host = await Host.in(folder);
  await host.addTemplate('debian', 'the template');
  await host.registry.cloneForVm('vm', 'debian', options);
  const jail = join(host.root, 'jail');
  await mkdir(jail);
  return { host, jail };
}

describeEachFilesystem((filesystem) => {
  test('within the filesystem: the very image, which stays its slot’s', async () => {
    const { host, jail } = await hostWithSlot(filesystem.path);
    const path = join(jail, 'disk');
    const exported = await host.registry.exportTo('vm', path, { mode: 0o640 });
    expect(exported).toMatchObject({ path, strategy: 'hardlink', attempts: [], sizeBytes: 12 });
    expect((await stat(path)).mode & 0o777).toBe(0o640);
    await writeFile(path, 'by the guest', { flag: 'r+' });
    expect(await readFile(host.slot('vm').image, 'utf8')).toBe('by the guest');
    // The second name is ours: the clone is still as independent of its template as it was.
    expect(await host.registry.cloneForVm('vm', 'debian', WRITABLE)).toMatchObject({
      reused: true,
      sharesTemplateInode: false,
    });
    expect(await host.registry.slot('vm')).not.toMatchObject({ strategy: 'hardlink' });
    expect(await readFile(path, 'utf8')).toBe('by the guest');
    expect((await stat(path, { bigint: true })).ino).toBe(
      (await stat(host.slot('vm').image, { bigint: true })).ino,
    );
    const second = await host.registry.exportTo('vm', join(jail, 'again'));
    expect(second).toMatchObject({ strategy: 'hardlink' });
    await host.registry.release('vm');
    expect(await readFile(path, 'utf8')).toBe('by the guest');
  });

  test('never the template: what shares its inode is exported as a file of its own', async () => {
    const { host, jail } = await hostWithSlot(filesystem.path, { writable: false });
    const shared = (await host.registry.cloneForVm('vm', 'debian')).sharesTemplateInode;
    const path = join(jail, 'disk');
    const exported = await host.registry.exportTo('vm', path);
    if (shared) {
      expect(exported.strategy).toBe('copy');
      expect(exported.attempts[0]).toEqual({ strategy: 'hardlink', code: 'SHARED_INODE' });
    }
    await writeFile(path, 'by the guest', { flag: 'r+' });
    expect(await readFile(host.template('debian'), 'utf8')).toBe('the template');
  });

  test('an image that a backup has linked is still its slot’s alone; the backup keeps its owner and mode', async () => {
    const { host, jail } = await hostWithSlot(filesystem.path);
    await link(host.slot('vm').image, join(jail, 'backup'));
    if (filesystem.hidesOpenFiles) await sleep(1100); // FUSE answers from its cache for a second
    const { mode } = await stat(join(jail, 'backup'));
    await rejection(host.registry.exportTo('vm', join(jail, 'dressed'), { mode: 0o400 }), 'SHARED_INODE');
    expect((await stat(join(jail, 'backup'))).mode).toBe(mode);
    expect(await readdir(jail)).toEqual(['backup']);
    const same = await host.registry.exportTo('vm', join(jail, 'same'), { mode: mode & 0o777 });
    expect(same).toMatchObject({ strategy: 'hardlink', attempts: [] });
    const exported = await host.registry.exportTo('vm', join(jail, 'disk'));
    expect(exported).toMatchObject({ strategy: 'hardlink', attempts: [] });
  });

  test('a name that the image got after an export is not taken for exportTo’s', async () => {
    const { host, jail } = await hostWithSlot(filesystem.path);
    const { image } = host.slot('vm');
    const path = join(jail, 'disk');
    await host.registry.exportTo('vm', path, { mode: 0o640 });
    await unlink(path);
    await link(image, join(jail, 'backup'));
    if (filesystem.hidesOpenFiles) await sleep(1100);
    await rejection(host.registry.cloneForVm('vm', 'debian', { ...WRITABLE, mode: 0o600 }), 'SHARED_INODE');
    await rejection(host.registry.exportTo('vm', path, { mode: 0o600 }), 'SHARED_INODE');
    expect((await stat(join(jail, 'backup'))).mode & 0o777).toBe(0o640);
    await mkdir(dirname(host.template('of-a-vm')));
    await rename(join(jail, 'backup'), host.template('of-a-vm'));
    const copied = await host.registry.exportTo('vm', path, { mode: 0o600 });
    expect(copied.attempts[0]).toEqual({ strategy: 'hardlink', code: 'SHARED_INODE' });
    expect((await stat(host.template('of-a-vm'))).mode & 0o777).toBe(0o640);
  });
});

test('the same export again serves, also with other owner and mode; another file with that name is refused', async () => {
  const { host, jail } = await hostWithSlot(inject('scratch'));
  const path = join(jail, 'disk');
  await host.registry.exportTo('vm', path);
  expect(await host.registry.exportTo('vm', path, { mode: 0o640, durable: true })).toMatchObject({
    strategy: 'hardlink',
  });
  expect((await stat(path)).mode & 0o777).toBe(0o640);
  await host.registry.cloneForVm('other', 'debian', WRITABLE);
  await rejection(host.registry.exportTo('other', path), 'FILE_EXISTS');
});

test('an image that is longer than its stamps say is not read', async () => {
  const { host, jail } = await hostWithSlot(inject('scratch'));
  await truncate(host.slot('vm').image, 2 ** 43);
  await rejection(host.registry.exportTo('vm', join(jail, 'disk')), 'SLOT_TORN');
  await rejection(host.anotherRegistry().snapshotSlot('vm', 'snap'), 'SLOT_TORN');
  await rejection(host.registry.commitSlot('vm', 'golden'), 'SLOT_TORN');
  await rejection(host.registry.forkSlot('vm', 'child', { refuseInUse: true }), 'SLOT_TORN');
});

test('an image that another program made longer is kept: the message tells what its size stamp must say', async () => {
  const { host, jail } = await hostWithSlot(inject('scratch'));
  const { registry } = host;
  const { image, sizeStamp } = host.slot('vm');
  const calls = [
    () => registry.exportTo('vm', join(jail, 'disk')),
    () => registry.snapshotSlot('vm', 'snap'),
    () => registry.commitSlot('vm', 'golden'),
    () => registry.forkSlot('vm', 'child'),
  ];
  const { size } = await stat(image);
  await truncate(image, 2 * size);
  for (const call of calls) {
    const { message } = await rejection(call(), 'SLOT_TORN');
    expect(message).toContain(`ask for ${2 * size} bytes`);
    expect(message).not.toContain('release');
  }
  await writeFile(sizeStamp, `${size}`);
  for (const call of calls) {
    const { message } = await rejection(call(), 'SIZE_STAMP_MISMATCH');
    expect(message).toContain(`Write ${2 * size} to rootfs.ext4.size`);
    expect(message).not.toContain('release');
  }
  await writeFile(sizeStamp, `${2 * size}`);
  expect(await registry.snapshotSlot('vm', 'snap')).toMatchObject({ files: [{ sizeBytes: 2 * size }] });
});

test('to another filesystem: a copy with its holes kept, and nothing half-made beside it', async () => {
  for (const name of ['ext4', 'tmpfs', 'FUSE (fuse2fs)', 'btrfs']) {
    const host = await Host.in(filesystemNamed('XFS').path);
    await host.addExt4Template('debian', 64 * MiB);
    await host.registry.cloneForVm('vm', 'debian', WRITABLE);
    const elsewhere = await Host.in(filesystemNamed(name).path);
    const path = join(elsewhere.root, 'disk');
    const exported = await host.registry.exportTo('vm', path, { durable: true });
    expect(exported).toMatchObject({
      strategy: 'copy',
      attempts: [{ strategy: 'hardlink', code: 'EXDEV' }, { strategy: 'reflink' }],
    });
    expect((await readFile(path)).equals(await readFile(host.slot('vm').image))).toBe(true);
    expect((await stat(path)).blocks).toBeLessThanOrEqual((await stat(host.slot('vm').image)).blocks + 64);
    expect(await readdir(elsewhere.root)).toEqual(expect.arrayContaining(['disk']));
    expect((await readdir(elsewhere.root)).filter((entry) => entry.startsWith('.'))).toEqual([]);
    expect((await host.registry.slot('vm'))?.strategy).not.toBe('hardlink');
  }
});

test('of a disk that a backup has linked, owner and mode of a copy are free', async () => {
  const { host } = await hostWithSlot(inject('scratch'));
  await link(host.slot('vm').image, join(host.root, 'backup'));
  const elsewhere = await Host.in(filesystemNamed('tmpfs').path);
  const path = join(elsewhere.root, 'disk');
  expect(await host.registry.exportTo('vm', path, { mode: 0o640 })).toMatchObject({ strategy: 'copy' });
  expect((await stat(path)).mode & 0o777).toBe(0o640);
});

test('two paths of one name are one name, and the mark of an earlier version stands for one', async () => {
  const { host, jail } = await hostWithSlot(inject('scratch'));
  const { image } = host.slot('vm');
  const reuse = () => host.registry.cloneForVm('vm', 'debian', { ...WRITABLE, mode: 0o640 });
  await symlink(jail, join(host.root, 'link'));
  await host.registry.exportTo('vm', join(jail, 'disk'));
  await host.registry.exportTo('vm', join(host.root, 'link/disk'));
  await link(image, join(host.root, 'backup'));
  await rejection(reuse(), 'SHARED_INODE');
  await unlink(join(host.root, 'backup'));
  await writeFile(`${image}.exported`, `${(await stat(image)).ino}`);
  await reuse();
  await host.registry.exportTo('vm', join(jail, 'second'), { mode: 0o600 });
  await reuse();
});

test('as many exports as one likes, to paths of any length', async () => {
  const { host, jail } = await hostWithSlot(inject('scratch'));
  for (let i = 0; i < 60; i++) {
    const path = join(jail, `${i}`.padEnd(200, '-'));
    await host.registry.exportTo('vm', path);
    if (i < 50) await unlink(path);
  }
  await host.registry.cloneForVm('vm', 'debian', { ...WRITABLE, mode: 0o640 });
  expect((await stat(`${host.slot('vm').image}.exported`)).size).toBeLessThanOrEqual(4096);
});

test('without O_TMPFILE, what killed exports have left goes with the next one', async ({ skip }) => {
  const { path: folder, missing } = filesystemNamed('FUSE (bindfs over ext4)');
  if (missing !== undefined) skip(missing);
  const { host } = await hostWithSlot(inject('scratch'));
  const { root } = await Host.in(folder);
  const [left, locked, note] = ['0123456789abcdef', 'abc', 'note'].map((name) =>
    join(root, `.microvm-rootfs-${name}.tmp`),
  ) as [string, string, string];
  for (const file of [left, locked, note]) await writeFile(file, '');
  const lock = spawn('flock', [locked, 'sh', '-c', 'echo locked; exec sleep 60']);
  onTestFinished(() => {
    lock.kill('SIGKILL');
  });
  await once(lock.stdout, 'data');
  await host.registry.exportTo('vm', join(root, 'disk'));
  const names = await readdir(root);
  expect(names).toEqual(expect.arrayContaining([basename(locked), basename(note), 'disk']));
  expect(names).not.toContain(basename(left));
});

test('owner and mode are the jailed VMM’s', async ({ skip }) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(reason);
  const { host, jail } = await hostWithSlot(inject('scratch'));
  await host.registry.exportTo('vm', join(jail, 'disk'), { owner: { uid: 4711, gid: 4712 }, mode: 0o600 });
  expect(await stat(join(jail, 'disk'))).toMatchObject({ uid: 4711, gid: 4712 });
});

test('a place where it would be a template, a slot or a part of one is FOLDERS_OVERLAP', async () => {
  const { host, jail } = await hostWithSlot(inject('scratch'));
  await mkdir(join(host.templateDir, 'evil'));
  await mkdir(join(host.clonesDir, 'vm-9'));
  await symlink(host.templateDir, join(jail, 'templates'));
  const snapshots = join(host.root, 'snapshots');
  await mkdir(snapshots);
  const registry = new RootfsRegistry({ ...host.registry.config, snapshotsDir: snapshots });
  for (const path of [
    join(host.templateDir, 'evil/rootfs.ext4'),
    join(jail, 'templates/evil/rootfs.ext4'),
    join(host.clonesDir, 'vm-8'),
    join(host.clonesDir, 'vm-9/rootfs.ext4'),
    join(host.clonesDir, 'vm/rootfs.ext4.stack'),
    join(host.clonesDir, '.microvm-rootfs/disk'),
    join(snapshots, 'disk'),
  ]) {
    const { message } = await rejection(registry.exportTo('vm', path), 'FOLDERS_OVERLAP');
    expect(message).toContain(path);
    expect(await exists(path)).toBe(false);
  }
  // A further file of the slot's user.
  await registry.exportTo('vm', join(host.clonesDir, 'vm/backup'));
  await registry.close();
});

// The part that is there was looked for from the end: 43 s for this path, and for a longer one all memory.
test('a path with thousands of missing folders is ENOENT at once', { timeout: 20_000 }, async () => {
  const { host, jail } = await hostWithSlot(inject('scratch'));
  const before = process.cpuUsage();
  await rejection(host.registry.exportTo('vm', join(jail, 'a/'.repeat(20_000), 'disk')), 'ENOENT');
  expect(process.cpuUsage(before).user).toBeLessThan(5_000_000);
});

test('a path that is taken, be it by a link to nothing: FILE_EXISTS, and both files stay', async () => {
  const { host, jail } = await hostWithSlot(inject('scratch'));
  await writeFile(join(jail, 'file'), 'mine');
  await symlink('/nowhere', join(jail, 'link'));
  const elsewhere = await Host.in(filesystemNamed('tmpfs').path);
  await writeFile(join(elsewhere.root, 'file'), 'mine');
  for (const path of [join(jail, 'file'), join(jail, 'link'), join(elsewhere.root, 'file')]) {
    await rejection(host.registry.exportTo('vm', path), 'FILE_EXISTS');
  }
  expect(await readFile(join(jail, 'file'), 'utf8')).toBe('mine');
  expect(await readFile(join(elsewhere.root, 'file'), 'utf8')).toBe('mine');
  expect((await lstat(host.slot('vm').image)).nlink).toBe(1);
  await rejection(host.registry.exportTo('vm', join(jail, 'no', 'such')), 'ENOENT');
  await rejection(host.registry.exportTo('other', join(jail, 'disk')), 'SLOT_NOT_FOUND');
  for (const nowhere of ['', `${jail}/`, `${jail}/.`, `${jail}/..`])
    await rejection(host.registry.exportTo('vm', nowhere), 'INVALID_ARGUMENT');
  for (const folder of [jail, elsewhere.root]) {
    const { message } = await rejection(host.registry.exportTo('vm', folder), 'FILE_EXISTS');
    expect(message).toMatch(/is a folder: give the path of a file in it$/);
  }
  expect((await readdir(jail)).sort()).toEqual(['file', 'link']);
  expect(await host.registry.cloneForVm('vm', 'debian', WRITABLE)).toMatchObject({
    sharesTemplateInode: false,
  });
});

test('growing an exported slot is refused while the jail has it open', async () => {
  const host = await Host.in(filesystemNamed('XFS').path);
  await host.addExt4Template('debian', 16 * MiB);
  await host.registry.cloneForVm('vm', 'debian', WRITABLE);
  await host.registry.exportTo('vm', join(host.root, 'disk'));
  const vmm = await open(join(host.root, 'disk'), 'r+');
  await rejection(host.registry.cloneForVmWithSize('vm', 'debian', 32 * MiB), 'SLOT_IN_USE');
  await vmm.close();
});
