// Slots that can't be renamed away, or into: what is there can be released, grown and removed all the same.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { sha256 } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';
import { newWorkspace } from '../fixtures/workspace.js';

const WRITABLE = { writable: true } as const;

test('slots, stacks and snapshots in the lower layer of an overlay are taken away where they lie', async ({
  skip,
}) => {
  const reason = lacksRoot() ?? lacks('mkfs.xfs');
  if (reason !== undefined) skip(reason);
  const work = newWorkspace();
  const disk = work.disk('below', ['mkfs.xfs', '-q', '-f', '-m', 'reflink=1']);
  for (const part of ['lower', 'upper', 'work']) mkdirSync(join(disk, part));
  const lower = await Host.in(join(disk, 'lower'));
  await lower.addTemplate('debian', pattern(MiB));
  for (const vm of ['vm-1', 'a/b', 'vm-3', 'vm-4']) await lower.registry.cloneForVm(vm, 'debian', WRITABLE);
  mkdirSync(join(lower.slot('vm-1').path, 'logs', 'deep'), { recursive: true });
  writeFileSync(join(lower.slot('vm-1').path, 'logs', 'deep', 'console'), 'of the VMM');
  await lower.registry.snapshotSlot('vm-3', 'kept');
  await truncate(lower.slot('vm-4').stamp, 0);
  // As a process leaves it that is killed before it has flushed a copy.
  writeFileSync(`${lower.slot('vm-1').image}.unsettled`, 'of another boot');
  await lower.registry.close();

  const layers = `lowerdir=${disk}/lower,upperdir=${disk}/upper,workdir=${disk}/work,redirect_dir=off`;
  const mount = work.mount('overlay', ['-t', 'overlay', 'overlay', '-o', layers]);
  const root = join(mount, readdirSync(mount)[0] as string);
  const host = await Host.in(root, { templateDir: join(root, 'templates'), clonesDir: join(root, 'clones') });
  await rejection(host.registry.release('a_b'), 'VM_ID_COLLISION');
  expect(await host.registry.release('vm-1', { durable: true })).toBe(true);
  expect(await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).toMatchObject({ reused: false });
  expect(await host.registry.recover()).toMatchObject({ tornSlots: ['vm-4'] });
  expect(await host.registry.gc({ keep: ['vm-1', 'vm-3'] })).toMatchObject({ released: ['a/b'] });
  expect(await host.registry.removeSnapshot('kept')).toBe(true);
  expect(await host.registry.removeStack('debian', { force: true })).toBe(true);
  expect(await host.slotNames()).toEqual(['vm-1', 'vm-3']);
});

test('a slot whose folder is a mount point is grown by a reflink of the grown disk', async ({ skip }) => {
  const reason = lacksRoot() ?? lacks('mkfs.xfs', 'resize2fs');
  if (reason !== undefined) skip(reason);
  const host = await Host.in(newWorkspace().disk('xfs', ['mkfs.xfs', '-q', '-f', '-m', 'reflink=1']));
  await host.addExt4Template('debian', 8 * MiB);
  await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  const { path } = host.slot('vm-1');
  execFileSync('mount', ['--bind', path, path]);
  try {
    await growsThere(host);
  } finally {
    execFileSync('umount', [path]);
  }
});

test('a slot that is a subvolume of btrfs is grown, keeps its owner and mode, and is released', async ({
  skip,
}) => {
  const reason = lacksRoot() ?? lacks('mkfs.btrfs', 'btrfs', 'resize2fs');
  if (reason !== undefined) skip(reason);
  const host = await Host.in(newWorkspace().disk('btrfs', ['mkfs.btrfs', '-q', '-f']));
  await host.addExt4Template('debian', 8 * MiB);
  await host.registry.cloneForVm('vm-1', 'debian', {
    ...WRITABLE,
    owner: { uid: 1000, gid: 1001 },
    mode: 0o640,
  });
  const { path, image } = host.slot('vm-1');
  await rename(path, join(host.root, 'was'));
  execFileSync('btrfs', ['subvolume', 'create', path], { stdio: 'pipe' });
  execFileSync('cp', ['-a', '--reflink=always', `${join(host.root, 'was')}/.`, path]);
  await growsThere(host);
  expect(await stat(image)).toMatchObject({ uid: 1000, gid: 1001, mode: 0o100640 });
  expect(await host.registry.release('vm-1')).toBe(true);
  expect(await host.slotNames()).toEqual([]);
});

/** What a process left that was killed there is in nobody's way. */
async function growsThere(host: Host): Promise<void> {
  const { path, image } = host.slot('vm-1');
  await writeFile(`${image}.new`, 'half');
  expect(await host.registry.cloneForVmWithSize('vm-1', 'debian', 16 * MiB)).toMatchObject({
    reused: true,
    sizeBytes: 16 * MiB,
  });
  execFileSync('e2fsck', ['-fn', image], { stdio: 'pipe' });
  expect(await readdir(path)).not.toContain('rootfs.ext4.new');
  expect(await host.leftovers()).toEqual([]);
}

test('a slot with a project id of its own, as quotas need, is grown and released', async ({ skip }) => {
  const reason = lacksRoot() ?? lacks('mkfs.xfs', 'chattr', 'resize2fs');
  if (reason !== undefined) skip(reason);
  const host = await Host.in(newWorkspace().disk('xfs', ['mkfs.xfs', '-q', '-f', '-m', 'reflink=1']));
  await host.addExt4Template('debian', 8 * MiB);
  await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  const { path, image } = host.slot('vm-1');
  execFileSync('chattr', ['-p', '42', image]);
  execFileSync('chattr', ['-p', '42', '+P', path]);
  expect(await host.registry.cloneForVmWithSize('vm-1', 'debian', 16 * MiB)).toMatchObject({
    reused: true,
    sizeBytes: 16 * MiB,
  });
  // What the quota counts is the disk that the VM has now.
  expect(execFileSync('lsattr', ['-p', image], { encoding: 'utf8' })).toMatch(/^ *42 /);
  expect(await host.registry.release('vm-1')).toBe(true);

  await mkdir(host.clonesDir, { recursive: true });
  execFileSync('chattr', ['-p', '7', '+P', host.clonesDir]);
  const grown = await host.registry.cloneForVm('vm-2', 'debian', { ...WRITABLE, sizeBytes: 32 * MiB });
  expect((await stat(grown.path)).size).toBe(32 * MiB);
  expect(await host.registry.release('vm-2')).toBe(true);
  expect(await host.leftovers()).toEqual([]);
});

test('with its quota used up, a new process on btrfs lists, releases and collects', async ({ skip }) => {
  const reason = lacksRoot() ?? lacks('mkfs.btrfs', 'btrfs');
  if (reason !== undefined) skip(reason);
  const disk = newWorkspace().disk('btrfs', ['mkfs.btrfs', '-q', '-f']);
  const host = await Host.in(disk);
  await host.addTemplate('debian', pattern(MiB));
  for (const vm of ['vm-1', 'vm-2', 'vm-3']) await host.registry.cloneForVm(vm, 'debian', WRITABLE);
  await host.registry.close();
  await rm(join(host.clonesDir, '.microvm-rootfs', 'spare'), { recursive: true, force: true });
  const btrfs = (...args: string[]) => execFileSync('btrfs', args, { stdio: 'pipe' });
  btrfs('quota', 'enable', disk);
  btrfs('quota', 'rescan', '-w', disk);
  btrfs('qgroup', 'limit', '64K', disk);
  const registry = host.anotherRegistry();
  const slots: string[] = [];
  for await (const { rawId } of registry.slots()) slots.push(rawId);
  expect(slots.sort()).toEqual(['vm-1', 'vm-2', 'vm-3']);
  const error = await rejection(registry.forkSlot('vm-1', 'vm-4'), ['ENOSPC', 'EDQUOT']);
  expect(error.message).toMatch(/release/i);
  expect(await registry.release('vm-1')).toBe(true);
  expect(await registry.gc({ keep: ['vm-3'] })).toMatchObject({ released: ['vm-2'] });
  expect(await host.slotNames()).toEqual(['vm-3']);
  btrfs('quota', 'disable', disk);
  // Space that has come back is used, without a new registry.
  expect(await registry.forkSlot('vm-3', 'vm-4')).toMatchObject({ vmId: 'vm-4' });
});

test('templates on a file system that can only be read are cloned, and the catalog is left alone', {
  timeout: 120_000,
}, async ({ skip }) => {
  const reason = lacksRoot() ?? lacks('mksquashfs', 'mkfs.xfs');
  if (reason !== undefined) skip(reason);
  const work = newWorkspace();
  const made = await Host.in();
  const bytes = pattern(MiB);
  await made.addTemplate('debian', bytes);
  await mkdir(join(made.templateDir, '.microvm-rootfs', 'staging', 'dead'), { recursive: true });
  const image = join(made.root, 'templates.squashfs');
  execFileSync(
    'mksquashfs',
    [made.templateDir, image, '-quiet', '-no-progress', '-noD', '-processors', '1'],
    { stdio: 'pipe' },
  );
  const templateDir = join(made.root, 'read-only');
  await mkdir(templateDir);
  execFileSync('mount', ['-o', 'loop', image, templateDir]);
  onTestFinished(() => void execFileSync('umount', ['--lazy', templateDir]));
  const disk = work.disk('xfs', ['mkfs.xfs', '-q', '-f', '-m', 'reflink=1']);
  const host = await Host.in(disk, { templateDir });
  expect(await host.registry.stacks()).toMatchObject([{ name: 'debian', sha256: sha256(bytes) }]);
  const { path } = await host.registry.cloneForVm('vm-1', 'debian', { ...WRITABLE, durable: true });
  expect(await readFile(path)).toEqual(bytes);
  expect(await host.registry.recover()).toMatchObject({ tornSlots: [], notSwept: [templateDir] });
  expect(await host.registry.gc({ keep: [] })).toMatchObject({ released: ['vm-1'] });
});

test('where upper and lower case are one, a VM never gets, grows, forks or releases the disk of another', async ({
  skip,
}) => {
  const reason = lacksRoot() ?? lacks('mkntfs', 'lowntfs-3g');
  if (reason !== undefined) skip(reason);
  const work = newWorkspace();
  const image = work.image('ntfs', ['mkntfs', '-q', '-F', '-f'], 64 * MiB);
  const disk = work.fuse('ntfs', (folder) => [
    'lowntfs-3g',
    '-o',
    'no_detach,ignore_case,permissions',
    image,
    folder,
  ]);
  const host = await Host.in(disk);
  await host.addTemplate('debian', pattern(MiB));
  await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  for (const call of [
    () => host.registry.cloneForVm('VM-1', 'debian', WRITABLE),
    () => host.registry.cloneForVmWithSize('Vm-1', 'debian', 2 * MiB),
    () => host.registry.forkSlot('VM-1', 'vm-2'),
    () => host.registry.slot('VM-1'),
    () => host.registry.slotInUse('VM-1'),
    () => host.registry.release('VM-1'),
    () => host.registry.snapshotSlot('VM-1', 'kept'),
  ])
    await rejection(call(), 'VM_ID_COLLISION');
  expect(await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).toMatchObject({ reused: true });
  expect(await host.registry.gc({ keep: ['vm-1'] })).toMatchObject({ released: [] });
  expect(await host.registry.release('vm-1')).toBe(true);
});

test('a project id of the clones folder never gets on a template, as a hardlink would carry it', async ({
  skip,
}) => {
  const reason = lacksRoot() ?? lacks('mkfs.xfs', 'chattr');
  if (reason !== undefined) skip(reason);
  const host = await Host.in(newWorkspace().disk('xfs', ['mkfs.xfs', '-q', '-f', '-m', 'reflink=0']));
  const template = await host.addTemplate('debian', 'debian');
  await host.registry.cloneForVm('vm-1', 'debian', { writable: false });
  execFileSync('chattr', ['-p', '42', '+P', host.clonesDir]);
  const clone = await host.registry.cloneForVm('vm-2', 'debian', { writable: false });
  expect(clone.sharesTemplateInode).toBe(true);
  expect(execFileSync('lsattr', ['-p', template], { encoding: 'utf8' })).toMatch(/^ *0 /);
});
