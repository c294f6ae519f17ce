// Disks that are full, read-only, or two; and what is peculiar to btrfs.
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { appendFile, mkdir, open, readFile, rm, statfs, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, inject, test } from 'vitest';
import type { RootfsRegistry } from '../../src/index.js';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { sha256Of, snapshot, walk } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { KiB, MiB, pattern, run } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';
import { newWorkspace } from '../fixtures/workspace.js';

const WRITABLE = { writable: true } as const;

/** Makes files until there can be no more. */
async function useUpInodes(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  try {
    for (let i = 0; ; i++) await writeFile(join(folder, `${Date.now()}-${i}`), '');
  } catch (error) {
    expect(error).toMatchObject({ code: 'ENOSPC', syscall: 'open' });
  }
}

async function rawIds(registry: RootfsRegistry): Promise<string[]> {
  const listed: string[] = [];
  for await (const { rawId } of registry.slots()) listed.push(rawId);
  return listed.sort();
}

/** Writes until nothing more fits. */
async function fill(folder: string): Promise<void> {
  const block = Buffer.alloc(64 * KiB, 1);
  const path = join(folder, 'ballast');
  for (const piece of [block, block.subarray(0, 4096)]) {
    try {
      for (;;) await appendFile(path, piece);
    } catch (error) {
      expect((error as NodeJS.ErrnoException).code).toBe('ENOSPC');
    }
  }
}

describe('a full disk', () => {
  test('without reflink: ENOSPC, nothing left behind, other slots as they were', async ({ skip }) => {
    const reason = lacksRoot() ?? lacks('mke2fs');
    if (reason !== undefined) skip(reason);
    const disk = newWorkspace().disk('small', ['mke2fs', '-q', '-F', '-t', 'ext4'], 32 * MiB);
    const host = await Host.in(disk);
    await host.addTemplate('debian', pattern(6 * MiB));
    await host.addTemplate('small', 'small');
    await host.registry.cloneForVm('earlier', 'small', WRITABLE);
    await fill(disk);
    const before = await snapshot(host.slot('earlier').path);
    for (const options of [WRITABLE, { ...WRITABLE, durable: true }]) {
      const error = await rejection(host.registry.cloneForVm('vm-1', 'debian', options), 'ENOSPC');
      expect(error.errno).toBe(-28);
      expect(error.syscall).not.toBe('');
    }
    expect(await host.slotNames()).toEqual(['earlier']);
    expect(await host.leftovers()).toEqual([]);
    expect(await snapshot(host.slot('earlier').path)).toEqual(before);
    expect(await readFile(host.template('small'), 'utf8')).toBe('small');
  });

  test('with reflink: a clone takes next to no space; if even that is missing, ENOSPC and nothing left', async ({
    skip,
  }) => {
    const reason = lacksRoot() ?? lacks('mkfs.xfs');
    if (reason !== undefined) skip(reason);
    const disk = newWorkspace().disk('small', ['mkfs.xfs', '-q', '-f', '-m', 'reflink=1'], 320 * MiB);
    const host = await Host.in(disk);
    await host.addTemplate('debian', pattern(64 * MiB));
    await host.registry.cloneForVm('earlier', 'debian', WRITABLE);
    await fill(disk);
    let made = 0;
    for (let i = 0; i < 50; i++) {
      const outcome = await host.registry.cloneForVm(`vm-${i}`, 'debian', WRITABLE).catch((error) => error);
      if (outcome instanceof Error) expect(outcome).toMatchObject({ code: 'ENOSPC' });
      else made++;
    }
    expect(await host.slotNames()).toHaveLength(made + 1);
    expect(await host.leftovers()).toEqual([]);
    expect(await sha256Of(host.slot('earlier').image)).toBe((await host.registry.stack('debian'))?.sha256);
  });

  test.for([
    { name: 'XFS', mkfs: ['mkfs.xfs', '-q', '-f', '-m', 'reflink=1'], sizeMiB: 320 },
    { name: 'btrfs', mkfs: ['mkfs.btrfs', '-q', '-f'], sizeMiB: 256 },
    { name: 'ext4', mkfs: ['mke2fs', '-q', '-F', '-t', 'ext4'], sizeMiB: 32 },
  ] as const)(
    '$name: a process that starts then can release, and so can the one after it',
    async ({ mkfs, sizeMiB }, { skip }) => {
      const reason = lacksRoot() ?? lacks(mkfs[0]);
      if (reason !== undefined) skip(reason);
      const disk = newWorkspace().disk('small', [...mkfs], sizeMiB * MiB);
      const host = await Host.in(disk);
      await host.addTemplate('debian', pattern(MiB));
      for (const id of ['vm-1', 'vm-2', 'vm-3']) await host.registry.cloneForVm(id, 'debian', WRITABLE);
      await host.registry.close();
      await fill(disk);
      for (const id of ['vm-1', 'vm-2']) {
        const next = host.anotherRegistry();
        expect(await next.release(id)).toBe(true);
        await next.close();
        await fill(disk);
      }
      expect(await host.slotNames()).toEqual(['vm-3']);
      const last = host.anotherRegistry();
      expect(await last.recover()).toMatchObject({ tornSlots: [] });
      expect(await last.cloneForVm('vm-3', 'debian', WRITABLE)).toMatchObject({ reused: true });
      expect(await host.leftovers()).toEqual([]);
    },
  );

  test.for([
    ['our own folder', ''],
    ['a trash in it', 'trash'],
    ['a pool in it', 'pool'],
  ] as const)('without inodes for %s, VMs end and stacks are removed', async ([, missing], { skip }) => {
    const reason = lacksRoot() ?? lacks('mke2fs');
    if (reason !== undefined) skip(reason);
    const disk = newWorkspace().disk('small', ['mke2fs', '-q', '-F', '-t', 'ext4', '-N', '128'], 32 * MiB);
    const host = await Host.in(disk);
    for (const stack of ['debian', 'alpine']) await host.addTemplate(stack, pattern(MiB));
    const ids = ['vm-1', 'vm-2', 'vm-3', 'vm-4', 'vm-5'];
    for (const id of ids) await host.registry.cloneForVm(id, 'debian', WRITABLE);
    await truncate(host.slot('vm-5').image, 0);
    await host.registry.close();
    for (const folder of [host.clonesDir, host.templateDir])
      for (const name of [missing, 'spare'])
        await rm(join(folder, '.microvm-rootfs', name), { recursive: true, force: true });
    await useUpInodes(join(disk, 'files'));

    const registry = host.anotherRegistry();
    expect(await rawIds(registry)).toEqual(ids);
    expect(await registry.usage()).toMatchObject({ slots: 5 });
    expect(await registry.release('vm-1', { durable: true })).toBe(true);
    expect(await registry.gc({ keep: ['vm-3', 'vm-4', 'vm-5'] })).toMatchObject({ released: ['vm-2'] });
    expect(await registry.recover()).toMatchObject({ tornSlots: ['vm-5'] });
    await useUpInodes(join(disk, 'files'));
    expect(await registry.removeStack('alpine', { force: true })).toBe(true);
    expect(await host.slotNames()).toEqual(['vm-3', 'vm-4']);

    // Space that has come back is used, also by whoever was there before.
    await rm(join(disk, 'files'), { recursive: true });
    expect(await host.anotherRegistry().forkSlot('vm-3', 'vm-1')).toMatchObject({ vmId: 'vm-1' });
    expect(await registry.release('vm-3')).toBe(true);
    expect(await registry.forkSlot('vm-4', 'vm-3')).toMatchObject({ vmId: 'vm-3' });
  });

  test('release works, and gives the space back', async ({ skip }) => {
    const reason = lacksRoot() ?? lacks('mke2fs');
    if (reason !== undefined) skip(reason);
    const disk = newWorkspace().disk('small', ['mke2fs', '-q', '-F', '-t', 'ext4'], 32 * MiB);
    const host = await Host.in(disk);
    await host.addTemplate('debian', pattern(6 * MiB));
    // Not as long as what is given back: the disk's own records have grown as well while it was filled.
    await host.addTemplate('alpine', pattern(5 * MiB));
    await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    await fill(disk);
    expect(await host.registry.release('vm-1')).toBe(true);
    await host.registry.drain();
    const { bfree, bsize } = await statfs(disk);
    expect(bfree * bsize).toBeGreaterThanOrEqual(6 * MiB);
    expect((await host.registry.cloneForVm('vm-2', 'alpine', WRITABLE)).reused).toBe(false);
  });
});

describe('a read-only disk', () => {
  test('without our own folder: what is there can be looked at', async ({ skip }) => {
    const reason = lacksRoot() ?? lacks('mke2fs');
    if (reason !== undefined) skip(reason);
    const disk = newWorkspace().disk('disk', ['mke2fs', '-q', '-F', '-t', 'ext4'], 64 * MiB);
    const host = await Host.in(disk);
    await host.addTemplate('debian', pattern(MiB));
    await host.registry.cloneForVm('earlier', 'debian', WRITABLE);
    await host.registry.close();
    for (const folder of [host.clonesDir, host.templateDir])
      await rm(join(folder, '.microvm-rootfs'), { recursive: true, force: true });
    execFileSync('mount', ['-o', 'remount,ro', disk]);
    try {
      const registry = host.anotherRegistry();
      expect(await rawIds(registry)).toEqual(['earlier']);
      expect(await registry.slot('earlier')).toMatchObject({ health: 'whole' });
      expect(await registry.usage()).toMatchObject({ slots: 1 });
      await rejection(registry.release('earlier'), 'EROFS');
      await rejection(registry.removeStack('debian', { force: true }), 'EROFS');
    } finally {
      execFileSync('mount', ['-o', 'remount,rw', disk]);
    }
  });

  test('clones folder: EROFS; templates alone on it are fine', async ({ skip }) => {
    const reason = lacksRoot() ?? lacks('mke2fs');
    if (reason !== undefined) skip(reason);
    const disk = newWorkspace().disk('disk', ['mke2fs', '-q', '-F', '-t', 'ext4'], 64 * MiB);
    const writable = await Host.in();
    const host = await Host.in(disk);
    await host.addTemplate('debian', pattern(MiB));
    await host.registry.cloneForVm('earlier', 'debian', WRITABLE);
    await host.registry.close();
    execFileSync('mount', ['-o', 'remount,ro', disk]);
    try {
      const registry = host.anotherRegistry();
      await rejection(registry.cloneForVm('vm-1', 'debian', WRITABLE), 'EROFS');
      await rejection(registry.release('earlier'), 'EROFS');
      expect((await rejection(registry.recover(), 'EROFS')).report).toBeUndefined();
      // What is there can be looked at.
      expect(await rawIds(registry)).toEqual(['earlier']);
      expect(await registry.slot('earlier')).toMatchObject({ health: 'whole' });
      expect(await registry.usage()).toMatchObject({ slots: 1 });
      expect(await registry.verify({ clones: true })).toMatchObject({ clones: 1, differences: [] });
      const elsewhere = host.anotherRegistry({ clonesDir: writable.clonesDir });
      const clone = await elsewhere.cloneForVm('vm-1', 'debian', { writable: false });
      expect(await sha256Of(clone.path)).toBe(clone.sourceSha256);
      expect(clone.strategy).not.toBe('hardlink');
    } finally {
      execFileSync('mount', ['-o', 'remount,rw', disk]);
    }
  });
});

describe('templates on one filesystem, clones on another', () => {
  beforeEach(({ skip }) => {
    const reason = inject('filesystems').find(({ missing }) => missing !== undefined)?.missing;
    if (reason !== undefined) skip(reason);
  });

  test.each([
    ['ext4', 'XFS'],
    ['XFS', 'ext4'],
    ['tmpfs', 'btrfs'],
    ['btrfs', 'tmpfs'],
    ['FUSE (fuse2fs)', 'XFS'],
    ['XFS', 'FUSE (bindfs over ext4)'],
  ])('%s to %s: never a hardlink, the same bytes, and the way down is told', async (from, to) => {
    const source = await Host.in(filesystemNamed(from).path);
    const host = await Host.in(filesystemNamed(to).path, { templateDir: source.templateDir });
    await source.addTemplate('debian', pattern(2 * MiB));
    for (const [id, writable] of [
      ['a', false],
      ['b', true],
    ] as const) {
      const clone = await host.registry.cloneForVm(id, 'debian', { writable });
      expect(clone).toMatchObject({ sharesTemplateInode: false, reused: false });
      expect(clone.strategy).not.toBe('hardlink');
      if (clone.strategy === 'copy') expect(clone.attempts.length).toBeGreaterThan(0);
      expect(await sha256Of(clone.path)).toBe(clone.sourceSha256);
    }
    await source.addExt4Template('ext4', 16 * MiB);
    expect((await host.registry.cloneForVmWithSize('c', 'ext4', 48 * MiB)).sizeBytes).toBe(48 * MiB);
  });
});

describe('btrfs', () => {
  beforeEach(({ skip }) => {
    const reason = filesystemNamed('btrfs').missing ?? lacks('btrfs', 'chattr');
    if (reason !== undefined) skip(reason);
  });

  test('templates in one subvolume, clones in another: device numbers differ, reflink works all the same', async () => {
    const base = await Host.in(filesystemNamed('btrfs').path);
    for (const name of ['templates-volume', 'clones-volume'])
      await run('btrfs', ['subvolume', 'create', join(base.root, name)]);
    const host = await Host.in(join(base.root, 'templates-volume'), {
      clonesDir: join(base.root, 'clones-volume', 'clones'),
    });
    await host.addTemplate('debian', pattern(2 * MiB));
    for (const registry of [host.registry, host.anotherRegistry({ sealing: 'off' })]) {
      const clone = await registry.cloneForVm('vm-1', 'debian', WRITABLE);
      expect(clone).toMatchObject({ strategy: 'reflink', attempts: [] });
      await registry.release('vm-1');
      await registry.close();
    }
    for (const name of ['templates-volume', 'clones-volume'])
      await run('btrfs', ['subvolume', 'delete', join(base.root, name)]);
  });

  test.each([
    ['the template', true, false],
    ['the clones folder', false, true],
    ['both', true, true],
  ])('NOCOW on %s: reflinked all the same', async (_what, onTemplate, onClones) => {
    const host = await Host.in(filesystemNamed('btrfs').path);
    mkdirSync(host.clonesDir);
    if (onTemplate) await run('chattr', ['+C', host.templateDir]);
    if (onClones) await run('chattr', ['+C', host.clonesDir]);
    await mkdir(join(host.templateDir, 'debian'));
    // Made in place: the flag is inherited from the folder.
    await writeFile(host.template('debian'), pattern(2 * MiB), { flush: true });
    for (const sealing of ['auto', 'off'] as const) {
      const clone = await host.anotherRegistry({ sealing }).cloneForVm(sealing, 'debian', WRITABLE);
      expect(clone).toMatchObject({ strategy: 'reflink', attempts: [] });
      expect(await sha256Of(clone.path)).toBe(clone.sourceSha256);
      const file = await open(clone.path, 'r+');
      await file.write('guest', 0);
      await file.close();
      expect(await sha256Of(host.template('debian'))).toBe(clone.sourceSha256);
    }
  });
});

test('a template folder on a disk that went away is an empty catalog, not a crash', async () => {
  const host = await Host.in();
  const registry = host.anotherRegistry({ templateDir: join(host.root, 'not-mounted') });
  expect(await registry.stacks()).toEqual([]);
  await rejection(registry.cloneForVm('vm-1', 'debian'), 'STACK_NOT_FOUND');
  expect(await walk(host.clonesDir)).toEqual([]);
});
