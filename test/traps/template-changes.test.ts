// A stamp must name the bytes that its clone holds, whatever happens to the template meanwhile.
import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { open, rename, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test, vi } from 'vitest';
import type { RootfsError } from '../../src/index.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { whileHashing } from '../fixtures/while-hashing.js';

const WRITABLE = { writable: true } as const;
const OLD = pattern(8 * MiB, 1);
const NEW = pattern(8 * MiB, 2);

describeEachFilesystem((filesystem) => {
  test('replaced at any moment of a cold clone: stamp and bytes belong together', async () => {
    const host = await Host.in(filesystem.path);
    for (const delayMs of [0, 1, 3, 10, 25, 40]) {
      const stack = `stack-${delayMs}`;
      const id = `vm-${delayMs}`;
      const template = await host.addTemplate(stack, OLD);
      const fresh = join(host.root, 'fresh');
      await writeFile(fresh, NEW);
      const cloning = host.registry.cloneForVm(id, stack, WRITABLE).catch((error: RootfsError) => error);
      await sleep(delayMs);
      await rename(fresh, template);
      const outcome = await cloning;
      if (outcome instanceof Error) expect((outcome as RootfsError).code).toBe('TEMPLATE_CHANGED');
      else expect(await sha256Of(outcome.path)).toBe(outcome.sourceSha256);
      if (!(outcome instanceof Error)) expect(await host.stampOf(id)).toBe(outcome.sourceSha256);
    }
    await host.registry.drain();
    expect(await host.leftovers()).toEqual([]);
  });

  test('replaced between warm clones: the next clone is of the new one', async () => {
    const host = await Host.in(filesystem.path);
    const first = await hostClone(host, 'vm-1', OLD);
    const second = await hostClone(host, 'vm-2', NEW);
    expect(second.sourceSha256).not.toBe(first.sourceSha256);
    expect(await sha256Of(second.path)).toBe(second.sourceSha256);
    expect(await sha256Of(first.path)).toBe(first.sourceSha256);
  });

  test('removed between warm clones: there is no such stack any more, and the clones stay', async () => {
    const host = await Host.in(filesystem.path);
    const first = await hostClone(host, 'vm-1', OLD);
    await unlink(host.template('debian'));
    await rejection(host.registry.cloneForVm('vm-2', 'debian', WRITABLE), 'STACK_NOT_FOUND');
    expect(await sha256Of(first.path)).toBe(first.sourceSha256);
  });
});

async function hostClone(host: Host, id: string, bytes: Buffer) {
  await host.addTemplate('debian', bytes);
  return host.registry.cloneForVm(id, 'debian', WRITABLE);
}

test('changed while it is hashed: no digest, and nothing is remembered', async () => {
  const host = await Host.in();
  const template = await host.addTemplate('debian', pattern(64 * MiB));
  let changes = 0;
  whileHashing(() => {
    if (changes++ > 0) return;
    const fd = openSync(template, 'r+');
    writeSync(fd, 'x', 40 * MiB);
    closeSync(fd);
  });
  await rejection(host.registry.stack('debian'), 'TEMPLATE_CHANGED');
  expect((await host.registry.stack('debian'))?.sha256).toBe(await sha256Of(template));
  expect(changes).toBe(2);
});

test('a writer that comes and goes while a clone is made is noticed', async () => {
  const host = await Host.in();
  const template = await host.addTemplate('debian', pattern(64 * MiB));
  whileHashing(() => writeFileSync(template, pattern(64 * MiB, 3)));
  await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), 'TEMPLATE_CHANGED');
  expect(await host.slotNames()).toEqual([]);
  expect(await host.leftovers()).toEqual([]);
});

test('open for writing, although nothing is written: a mapped page can change without a new mtime', async () => {
  const host = await Host.in();
  const template = await host.addTemplate('debian', OLD);
  await host.addTemplate('alpine', 'alpine');
  const file = await open(template, 'r+');
  await rejection(host.registry.stack('debian'), 'TEMPLATE_CHANGED');
  const warn = vi.spyOn(process, 'emitWarning').mockReturnValue();
  expect((await host.registry.stacks()).map(({ name }) => name)).toEqual(['alpine']);
  expect(warn.mock.calls.map(([message]) => message)).toEqual([
    expect.stringContaining('debian is left out'),
  ]);
  warn.mockRestore();
  await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), 'TEMPLATE_CHANGED');
  expect(await host.slotNames()).toEqual([]);
  await file.close();
  expect((await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).reused).toBe(false);
});

test('open for reading is fine', async () => {
  const host = await Host.in();
  const template = await host.addTemplate('debian', OLD);
  const file = await open(template, 'r');
  expect((await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).reused).toBe(false);
  await file.close();
});
