// A slot that is made from an image: what it records, and what becomes of it if the image, or the name, is another's.
import { appendFile, mkdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, onTestFinished, test } from 'vitest';
import type { Identity } from '../../src/addon/identity.js';
import { native } from '../../src/addon/native.js';
import { ManagedFolder } from '../../src/folder/managed-folder.js';
import * as slots from '../../src/slot/new-slot.js';
import { parseVmId } from '../../src/slot/vm-id.js';
import { Task } from '../../src/system/task.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { exists, snapshot } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { pattern } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';

const SHA256 = 'ab'.repeat(32);
const IMAGE = pattern(70_000);
const task = new Task('restoring', undefined);

async function partsIn(path = inject('scratch')) {
  const host = await Host.in(path);
  const folder = new ManagedFolder(host.clonesDir);
  onTestFinished(() => folder.close());
  const image = join(host.root, 'image');
  await writeFile(image, IMAGE);
  await utimes(image, 2, 2); // a later write has another time, however coarse times are
  const identityOf = async (file: string) => (await native().identities([file]))[0] as Identity;
  const contents: slots.SlotContents = {
    from: { path: image, source: undefined, identity: await identityOf(image) },
    descent: { sourceSha256: SHA256, sizeStamp: 1 << 20, stack: 'web', storedStack: 'web' },
    options: { owner: undefined, mode: 0o640, durable: false },
  };
  const make = (id: string, more: Partial<Parameters<typeof slots.newSlot>[2]> = {}) =>
    folder.use((open) => slots.newSlot(task, open, { ...contents, folder, vm: parseVmId(id), ...more }));
  const ready = (given = contents) =>
    folder.use((open) => slots.newReadySlot(task, open, given, (how) => `r-${how}`));
  return { host, folder, image, contents, identityOf, make, ready };
}

describeEachFilesystem((filesystem) => {
  const strategy = filesystem.reflinks ? 'reflink' : 'copy';

  test('the slot has the image, its mode, stamps, stack and raw id, from a path and from an open file', async () => {
    const { host, folder, image, contents, make } = await partsIn(filesystem.path);
    const { source, info } = await native().openSource(image);
    onTestFinished(() => native().dispose(source));
    for (const from of [contents.from, { path: image, source, identity: info.identity }]) {
      const { slot, pooled } = await make('a/b', { from });
      const { image: path, stamp, sizeStamp, rawId } = host.slot('a_b');
      expect(pooled).toBe(false);
      expect(slot).toMatchObject({ vmId: 'a_b', stack: 'web', path, sourceSha256: SHA256, strategy });
      expect(slot.sizeBytes).toBe(IMAGE.length);
      expect((await readFile(path)).equals(IMAGE)).toBe(true);
      expect((await stat(path)).mode & 0o777).toBe(0o640);
      const texts = await Promise.all([stamp, sizeStamp, rawId].map((file) => readFile(file, 'utf8')));
      expect(texts).toEqual([SHA256, `${1 << 20}`, 'a/b']);
      await folder.drain();
      expect(await exists(`${path}.unsettled`)).toBe(false);
      await rm(host.slot('a_b').path, { recursive: true });
    }
    expect(await host.leftovers()).toEqual([]);
  });

  test('a ready slot is taken once, and made anew where it is gone', async () => {
    const { host, make, ready } = await partsIn(filesystem.path);
    const name = await ready();
    expect(name).toBe(`r-${strategy}`);
    const first = await make('vm/1', { ready: { name, strategy } });
    expect(first).toMatchObject({ pooled: true, slot: { strategy, attempts: [] } });
    expect(await readFile(host.slot('vm_1').rawId, 'utf8')).toBe('vm/1');
    const second = await make('vm-2', { ready: { name, strategy } });
    expect(second).toMatchObject({ pooled: false, slot: { strategy } });
    for (const id of ['vm_1', 'vm-2']) expect((await readFile(host.slot(id).image)).equals(IMAGE)).toBe(true);
    expect(await host.leftovers()).toEqual([]);
  });

  test('of many at once for one id, one makes it and the others find it', async () => {
    const { host, make } = await partsIn(filesystem.path);
    const made = await Promise.allSettled(Array.from({ length: 8 }, () => make('vm')));
    const codes = made.map((each) => (each.status === 'rejected' ? each.reason.code : 'made')).sort();
    expect(codes).toEqual([...Array(7).fill('SLOT_EXISTS'), 'made']);
    expect((await readFile(host.slot('vm').image)).equals(IMAGE)).toBe(true);
    expect(await host.leftovers()).toEqual([]);
  });
});

test.each<[how: string, change: (image: string) => Promise<unknown>]>([
  ['longer', (image) => appendFile(image, 'x')],
  ['as long, and written to', (image) => writeFile(image, pattern(70_000, 2))],
  ['of another time', (image) => utimes(image, 1, 1)],
  ['another file', (image) => rename(image, `${image}.was`).then(() => writeFile(image, IMAGE))],
  ['gone', (image) => rm(image)],
])('an image that is %s by then is SOURCE_CHANGED, also for a ready slot', async (_, change) => {
  const { host, image, make, ready } = await partsIn();
  await change(image);
  expect((await rejection(make('vm'), 'SOURCE_CHANGED')).message).toContain('restoring');
  await rejection(ready(), 'SOURCE_CHANGED');
  expect(await host.slotNames()).toEqual([]);
  expect(await host.leftovers()).toEqual([]);
});

test('a sibling that has changed or gone makes no slot', async () => {
  const { host, image, contents, identityOf, make } = await partsIn();
  const path = `${image}.memory`;
  await writeFile(path, 'memory');
  await utimes(path, 2, 2);
  const from = { ...contents.from, siblings: [{ path, identity: await identityOf(path) }] };
  await make('vm', { from });
  for (const change of [() => writeFile(path, 'MEMORY'), () => rm(path)]) {
    await change();
    await rejection(make('vm-2', { from }), 'SOURCE_CHANGED');
  }
  expect(await host.slotNames()).toEqual(['vm']);
});

test('a name that is taken: by whom decides the error, and what has it is not touched', async () => {
  const { host, make } = await partsIn();
  await make('a/b');
  await mkdir(join(host.clonesDir, 'other'));
  for (const path of ['other/file', 'file']) await writeFile(join(host.clonesDir, path), '');
  await mkdir(join(host.clonesDir, 'empty'));
  await make('empty');
  const [exists, invalid] = ['SLOT_EXISTS', 'SLOT_INVALID'];
  const taken = { 'a/b': exists, 'a:b': 'VM_ID_COLLISION', other: invalid, file: invalid };
  const before = await snapshot(host.slot('a_b').path);
  for (const [id, code] of Object.entries(taken)) {
    const path = join(host.clonesDir, parseVmId(id).safe);
    expect(await rejection(make(id), code)).toMatchObject({ path });
  }
  expect(await snapshot(host.slot('a_b').path)).toEqual(before);
  expect(await host.leftovers()).toEqual([]);
});
