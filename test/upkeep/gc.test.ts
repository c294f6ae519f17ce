// Releasing what nobody wants any more, and touching nothing else.
import { appendFile, mkdir, rename, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { GcReport } from '../../src/index.js';
import { exists, snapshot } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { rejection } from '../fixtures/rejection.js';

const WRITABLE = { writable: true } as const;

async function hostWithSlots(...ids: string[]): Promise<Host> {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  for (const id of ids) await host.registry.cloneForVm(id, 'debian', WRITABLE);
  return host;
}

test('what is not kept is released, by raw ids; a dry run only tells', async () => {
  const host = await hostWithSlots('vm-1', 'vm-2', 'vm/3', 'vm/4');
  const keep = new Set(['vm-1', 'vm/3']);
  const report = { released: expect.arrayContaining(['vm-2', 'vm/4']), inUse: [], unknown: [] };
  expect(await host.registry.gc({ keep, dryRun: true })).toEqual(report);
  expect(await host.slotNames()).toHaveLength(4);
  expect(await host.registry.gc({ keep })).toEqual(report);
  expect(await host.slotNames()).toEqual(['vm-1', 'vm_3']);
  expect(await host.registry.gc({ keep })).toEqual({ released: [], inUse: [], unknown: [] });
  await host.registry.drain();
  expect(await host.leftovers()).toEqual([]);
});

test('the name of its folder, which is the vmId that calls tell, keeps a slot as well', async () => {
  const host = await hostWithSlots('a/b', 'c/d');
  expect(await host.registry.gc({ keep: ['a_b'] })).toMatchObject({ released: ['c/d'] });
  expect(await host.slotNames()).toEqual(['a_b']);
});

test('a raw id that another program ended with a line’s end is still that of the VM on the list', async () => {
  const host = await hostWithSlots('a/b', 'c/d');
  for (const name of ['a_b', 'c_d']) await appendFile(host.slot(name).rawId, '\n');
  expect((await host.registry.gc({ keep: ['a/b'] })).released).toEqual(['c/d\n']);
  expect(await host.slotNames()).toEqual(['a_b']);
});

test('foreign files, links, folders, bare images and torn slots are not touched', async () => {
  const host = await hostWithSlots('vm-1', 'torn');
  await truncate(host.slot('torn').stamp, 0);
  await mkdir(join(host.clonesDir, 'lost_found'));
  await writeFile(join(host.clonesDir, 'lost_found', 'data'), 'precious');
  await writeFile(join(host.clonesDir, 'notes'), 'precious');
  await mkdir(join(host.clonesDir, 'backup'));
  await writeFile(join(host.clonesDir, 'backup', 'rootfs.ext4'), 'precious');
  await mkdir(join(host.clonesDir, 'with.dot'));
  await symlink('vm-1', join(host.clonesDir, 'link'));
  const visible = async () =>
    Object.entries(await snapshot(host.clonesDir)).filter(([path]) => !path.startsWith('.microvm-rootfs'));
  const before = await visible();
  expect(await host.registry.gc({ keep: ['vm-1'] })).toEqual({ released: [], inUse: [], unknown: [] });
  expect(await visible()).toEqual(before);
});

test('wrong arguments release nothing', async () => {
  const host = await hostWithSlots('vm-1');
  for (const options of [
    undefined,
    {},
    { keep: 'vm-1' },
    { keep: 7 },
    { keep: null },
    { keep: [], dryRun: 1 },
  ])
    await rejection(host.registry.gc(options as never), 'INVALID_ARGUMENT');
  for (const id of ['', 7, '\ud800'])
    await rejection(host.registry.gc({ keep: [id] as never }), 'INVALID_VM_ID');
  await rejection(host.registry.gc({ keep: [], signal: AbortSignal.abort() }), 'ABORT_ERR');
  expect(await host.slotNames()).toEqual(['vm-1']);
});

test('an iterator that was read before keeps no slot, and so is refused', async () => {
  const host = await hostWithSlots('vm-1');
  const keep = new Set(['vm-1']);
  expect(await host.registry.gc({ keep: keep.values() })).toMatchObject({ released: [] });
  const read = keep.values();
  expect([...read]).toEqual(['vm-1']);
  await rejection(host.registry.gc({ keep: read }), 'INVALID_ARGUMENT');
  expect(await host.slotNames()).toEqual(['vm-1']);
});

test('without a clones folder there is nothing to do, and none is made', async () => {
  const host = await Host.in();
  expect(await host.registry.gc({ keep: [] })).toEqual({ released: [], inUse: [], unknown: [] });
  expect(await exists(host.clonesDir)).toBe(false);
});

test('a folder that cannot be opened is one error, however many slots are in it, and no report', async () => {
  const host = await hostWithSlots('vm-1', 'vm-2', 'vm-3');
  await host.registry.close();
  const own = join(host.clonesDir, '.microvm-rootfs');
  await rename(own, `${host.root}/away`);
  await mkdir(`${host.root}/empty`);
  await symlink(`${host.root}/empty`, own);
  const registry = host.anotherRegistry();
  for (const call of [() => registry.gc({ keep: [] }), () => registry.recover()]) {
    const error = await rejection(call(), 'CLONES_DIR_INVALID');
    expect(error.message).toContain('is not a folder');
    expect(error.message).not.toContain('failures');
    expect(error.report).toBeUndefined();
  }
});

test('an abort tells what was released until then, and the space comes back', async () => {
  const ids = Array.from({ length: 30 }, (_, i) => `vm-${i}`);
  const host = await hostWithSlots(...ids);
  const ending = new AbortController();
  const watching = setInterval(async () => {
    if ((await host.slotNames()).length < ids.length) ending.abort();
  });
  const error = await rejection(host.registry.gc({ keep: [], signal: ending.signal }), 'ABORT_ERR').finally(
    () => clearInterval(watching),
  );
  const left = await host.slotNames();
  expect((error.report as GcReport).released).toHaveLength(ids.length - left.length);
  await host.registry.drain();
  expect(await host.leftovers()).toEqual([]);
});
