// Disks that are read-only, or two; and what is peculiar to btrfs.
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { mkdir, open, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, inject, test } from 'vitest';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { sha256Of, walk } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern, run } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';
import { newWorkspace } from '../fixtures/workspace.js';

const WRITABLE = { writable: true } as const;

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
      expect(await host.rawIds(registry)).toEqual(['earlier']);
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
      expect(await host.rawIds(registry)).toEqual(['earlier']);
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
