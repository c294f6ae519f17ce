// A slot that is there is handed out as it is, or made what was asked for; never another slot than was looked at.
import { link, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { inspectSlot } from '../../src/addon/native.js';
import type { Template } from '../../src/catalog/template.js';
import type { CloneOptions } from '../../src/clone/clone-options.js';
import { ExistingSlots } from '../../src/clone/existing-slots.js';
import { Sharers } from '../../src/slot/shared-image.js';
import { cloneParts } from '../fixtures/clone-parts.js';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { exists, snapshot } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { faultsOf, MiB } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks } from '../fixtures/tools.js';

const SIZE = 32 * MiB;

type Skip = (why?: string) => void;

async function slotsOn(skip: Skip, options: CloneOptions, name = 'XFS') {
  const filesystem = filesystemNamed(name);
  const missing = filesystem.missing ?? lacks('mke2fs', 'resize2fs', 'e2fsck');
  if (missing !== undefined) skip(missing);
  const host = await Host.in(filesystem.path);
  const path = await host.addExt4Template('debian', SIZE);
  const made = await host.registry.cloneForVm('vm', 'debian', options);
  await host.registry.drain();
  const { config, folder, templates, request } = cloneParts(host);
  const template = (await templates.look(path, undefined)) as Template;
  const slots = new ExistingSlots(folder, new Sharers(config), config);
  const of = (more: CloneOptions) => request('vm', 'debian', more);
  const state = () => folder.use(({ handle }) => inspectSlot(handle, 'vm'));
  return {
    host,
    made,
    state,
    /** Of a state that was seen earlier, where one is given. */
    asItIs: async (more: CloneOptions, seen?: Awaited<ReturnType<typeof state>>) =>
      slots.asItIs(of(more), template, seen ?? (await state())),
    reuse: async (more: CloneOptions, seen?: Awaited<ReturnType<typeof state>>) =>
      folder.use(async (open) => slots.reuse('reusing', open, of(more), template, seen ?? (await state()))),
  };
}

test('what needs no change is handed out without a wait, what needs one is not', async ({ skip }) => {
  const { asItIs, made } = await slotsOn(skip, { writable: true, mode: 0o640, owner: { uid: 7, gid: 8 } });
  const found = { ...made, reused: true, attempts: [] };
  for (const options of [
    {},
    { writable: true },
    { writable: false },
    { sizeBytes: SIZE },
    { mode: 0o640 },
    { owner: { uid: 7, gid: 8 } },
  ])
    expect(await asItIs(options), JSON.stringify(options)).toEqual(found);
  for (const options of [
    { durable: true },
    { sizeBytes: 2 * SIZE },
    { mode: 0o600 },
    { mode: 0 },
    { owner: { uid: 7, gid: 7 } },
    { owner: { uid: 0, gid: 8 } },
  ])
    expect(await asItIs(options), JSON.stringify(options)).toBeUndefined();
});

test('where there is no slot, it has to be looked for again', async ({ skip }) => {
  const { asItIs, reuse, host } = await slotsOn(skip, { writable: true });
  await host.registry.release('vm');
  expect(await asItIs({})).toBeUndefined();
  expect(await reuse({})).toBe('again');
});

test('owner and mode are set to what was asked for, and the bytes stay as they are', async ({ skip }) => {
  const { reuse, made } = await slotsOn(skip, { writable: true });
  const before = await readFile(made.path);
  expect(await reuse({ mode: 0o440, owner: { uid: 3, gid: 4 } })).toMatchObject({ reused: true });
  expect(await stat(made.path)).toMatchObject({ mode: 0o100440, uid: 3, gid: 4 });
  expect((await readFile(made.path)).equals(before)).toBe(true);
});

test('a slot that was made anew since it was looked at is let be', async ({ skip }) => {
  const { state, reuse, host, made } = await slotsOn(skip, { writable: true });
  const seen = await state();
  await host.registry.release('vm');
  await host.registry.cloneForVm('vm', 'debian', { writable: true });
  await host.registry.drain();
  const before = await snapshot(host.slot('vm').path);
  for (const options of [{ mode: 0o640 }, { durable: true }, { sizeBytes: 2 * SIZE }])
    expect(await reuse(options, seen), JSON.stringify(options)).toBe('again');
  expect(await snapshot(host.slot('vm').path)).toEqual(before);
  expect((await stat(made.path)).mode & 0o777).toBe(0o600);
});

test('a slot is grown once, and after that is found at its size and no other', async ({ skip }) => {
  const { asItIs, reuse, host, made } = await slotsOn(skip, { writable: true });
  await writeFile(join(host.root, 'guest'), 'what a guest wrote');
  expect(await reuse({ sizeBytes: 2 * SIZE })).toMatchObject({ reused: true, sizeBytes: 2 * SIZE });
  expect(await readFile(host.slot('vm').sizeStamp, 'utf8')).toBe(`${2 * SIZE}`);
  expect(await faultsOf(made.path)).toBe('');
  for (const options of [{}, { sizeBytes: 2 * SIZE }])
    expect(await asItIs(options)).toMatchObject({ reused: true, sizeBytes: 2 * SIZE });
  for (const sizeBytes of [2 * SIZE + 4096, 2 * SIZE - 4096, SIZE])
    await rejection(reuse({ sizeBytes }), 'SIZE_STAMP_MISMATCH');
});

test('a grow that was cut off is finished, and then the slot is looked at again', async ({ skip }) => {
  const { asItIs, reuse, host } = await slotsOn(skip, { writable: true, sizeBytes: 2 * SIZE });
  const { sizeStamp, newSizeStamp } = host.slot('vm');
  // Killed after the image was exchanged, before its stamp got its name.
  await rename(sizeStamp, newSizeStamp);
  expect(await asItIs({})).toBeUndefined();
  expect(await reuse({})).toBe('again');
  expect(await exists(newSizeStamp)).toBe(false);
  expect(await asItIs({ sizeBytes: 2 * SIZE })).toMatchObject({ sizeBytes: 2 * SIZE });
});

test('a name that somebody else gave the image keeps owner and mode as they are, and nothing else', async ({
  skip,
}) => {
  const { asItIs, reuse, host, made } = await slotsOn(skip, { writable: true });
  await link(made.path, join(host.root, 'backup'));
  expect(await asItIs({})).toBeUndefined();
  expect(await reuse({ writable: true })).toMatchObject({ reused: true, sharesTemplateInode: false });
  // It has that mode.
  expect(await reuse({ mode: 0o600 })).toMatchObject({ reused: true });
  const error = await rejection(reuse({ mode: 0o640 }), 'SHARED_INODE');
  expect(error.message).toContain('2 hardlinks');
  expect((await stat(made.path)).mode & 0o777).toBe(0o600);
});

test('a hardlink of the template becomes a disk of its own when the guest is to write to it', async ({
  skip,
}) => {
  const { asItIs, reuse, host, made } = await slotsOn(skip, { writable: false }, 'ext4');
  expect(made.strategy).toBe('hardlink');
  const inode = async (path: string) => (await stat(path)).ino;
  expect(await asItIs({})).toMatchObject({ strategy: 'hardlink', sharesTemplateInode: true });
  expect(await asItIs({ writable: true })).toBeUndefined();
  await rejection(reuse({ mode: 0o640 }), 'SHARED_INODE');
  expect(await reuse({ writable: true })).toMatchObject({ reused: true, sharesTemplateInode: false });
  expect(await inode(made.path)).not.toBe(await inode(host.template('debian')));
  expect(await reuse({ mode: 0o640, writable: true })).toMatchObject({ strategy: 'copy' });
});

test('a torn slot is refused without a wait as well', async ({ skip }) => {
  const { asItIs, host } = await slotsOn(skip, { writable: true });
  await writeFile(host.slot('vm').stamp, '');
  await rejection(asItIs({}), 'SLOT_TORN');
});
