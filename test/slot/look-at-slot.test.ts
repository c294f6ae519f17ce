// A look at a slot, in a folder that is there, moved away or replaced.
import { mkdir, readdir, rename } from 'node:fs/promises';
import { expect, inject, test } from 'vitest';
import { Host } from '../fixtures/host.js';
import { rejection } from '../fixtures/rejection.js';

async function hostWithSlot(): Promise<Host> {
  const host = await Host.in(inject('scratch'));
  await host.addTemplate('debian', 'bytes');
  await host.registry.cloneForVm('vm', 'debian', { writable: true });
  return host;
}

test('what is not there is undefined, and makes nothing, also when the whole folder was moved away', async () => {
  const host = await hostWithSlot();
  const { registry, clonesDir } = host;
  expect(await registry.slot('other')).toBeUndefined();
  await rejection(registry.slotInUse('other'), 'SLOT_NOT_FOUND');
  expect(await host.slotNames()).toEqual(['vm']);

  await rename(clonesDir, `${clonesDir}-away`);
  for (const _ of ['at first', 'and later']) {
    expect(await registry.slot('vm')).toBeUndefined();
    await rejection(registry.slotInUse('vm'), 'SLOT_NOT_FOUND');
  }
  await expect(readdir(clonesDir)).rejects.toThrow('ENOENT');
});

test('the slots of a folder that took the place of another are found', async () => {
  const [host, other] = [await hostWithSlot(), await hostWithSlot()];
  await other.registry.cloneForVm('new', 'debian', { writable: true });
  await rename(host.clonesDir, `${host.clonesDir}-away`);
  await mkdir(host.clonesDir);
  expect(await host.registry.slot('vm')).toBeUndefined();
  await rename(host.clonesDir, `${host.clonesDir}-empty`);
  await rename(other.clonesDir, host.clonesDir);
  expect(await host.registry.slot('new')).toMatchObject({ health: 'whole' });
});
