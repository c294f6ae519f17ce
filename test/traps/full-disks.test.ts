// What happens when the disk fills up half-way: ENOSPC, nothing is left behind, and slots can be released.
import { appendFile, mkdir, readFile, rm, statfs, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { sha256Of, snapshot } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { KiB, MiB, pattern } from '../fixtures/images.js';
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
    expect(await host.registry.cloneForVm('earlier', 'debian', WRITABLE)).toMatchObject({ reused: true });
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

  // Room for a folder and a reflink, and none for a stamp.
  test('btrfs: a slot that is there is handed out, though the last clone found its name free', async ({
    skip,
  }) => {
    const reason = lacksRoot() ?? lacks('mkfs.btrfs');
    if (reason !== undefined) skip(reason);
    const disk = newWorkspace().disk('small', ['mkfs.btrfs', '-q', '-f'], 256 * MiB);
    const host = await Host.in(disk);
    await host.addTemplate('debian', pattern(MiB));
    for (const id of ['vm-1', 'vm-2']) await host.registry.cloneForVm(id, 'debian', WRITABLE);
    await fill(disk);
    expect(await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).toMatchObject({ reused: true });
    expect(await host.leftovers()).toEqual([]);
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
    expect(await host.rawIds(registry)).toEqual(ids);
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
