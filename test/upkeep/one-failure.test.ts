// One slot that cannot be removed keeps no upkeep from all else.
import { execFileSync } from 'node:child_process';
import { truncate } from 'node:fs/promises';
import { expect, onTestFinished, test } from 'vitest';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

const WRITABLE = { writable: true } as const;

async function hostWithSlots(folder: string): Promise<Host> {
  const host = await Host.in(folder);
  await host.addTemplate('debian', 'debian');
  for (const id of ['vm-1', 'vm-2', 'vm-3', 'vm-4']) await host.registry.cloneForVm(id, 'debian', WRITABLE);
  return host;
}

function makeImmutable(path: string): void {
  execFileSync('chattr', ['+i', path]);
  onTestFinished(() => {
    execFileSync('chattr', ['-i', path]);
  });
}

describeEachFilesystem(
  (filesystem) => {
    test('gc releases the others, and names the one that failed', async ({ skip }) => {
      const reason = lacksRoot() ?? lacks('chattr');
      if (reason !== undefined) skip(reason);
      const host = await hostWithSlots(filesystem.path);
      makeImmutable(host.slot('vm-2').path);
      const { message } = await rejection(host.registry.gc({ keep: ['vm-4'] }), 'EPERM');
      expect(message).toContain(host.slot('vm-2').path);
      expect(await host.slotNames()).toEqual(['vm-2', 'vm-4']);
    });

    test('recover removes the other torn slots, and names the one that failed', async ({ skip }) => {
      const reason = lacksRoot() ?? lacks('chattr');
      if (reason !== undefined) skip(reason);
      const host = await hostWithSlots(filesystem.path);
      for (const id of ['vm-1', 'vm-2', 'vm-3']) await truncate(host.slot(id).stamp, 0);
      makeImmutable(host.slot('vm-2').path);
      const { message } = await rejection(host.registry.recover(), 'EPERM');
      expect(message).toContain(host.slot('vm-2').path);
      expect(await host.slotNames()).toEqual(['vm-2', 'vm-4']);
    });
  },
  ({ name }) => ['XFS', 'btrfs', 'ext4'].includes(name),
);
