// When the digest of a template still holds, and when it has to be computed again.

import { link, open, rename, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { describeEachFilesystem, filesystemNamed } from '../fixtures/each-filesystem.js';
import { sha256, sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { whileHashing } from '../fixtures/while-hashing.js';

const BYTES = pattern(4 * MiB);
const WRITABLE = { writable: true } as const;

/** Writes to a template and puts mtime back, as a forger does, or a tool that keeps times. */
async function overwrite(path: string): Promise<void> {
  const { atime, mtime } = await stat(path);
  const file = await open(path, 'r+');
  await file.write(Buffer.from('other bytes'), 0, 11, 3 * MiB);
  await file.close();
  await utimes(path, atime, mtime);
}

describeEachFilesystem((filesystem) => {
  test.each([
    ['a clone', WRITABLE],
    ['a clone of a template that was cloned before', WRITABLE],
  ])(
    '%s has the bytes of its stamp, though the template was written to under a second name',
    async (what, options) => {
      const host = await Host.in(filesystem.path);
      const template = await host.addTemplate('debian', BYTES);
      await host.registry.stacks();
      if (what.includes('before')) await host.registry.cloneForVm('before', 'debian', options);
      await link(template, join(host.root, 'second name'));
      await overwrite(template);
      const clone = await host.registry.cloneForVm('vm', 'debian', options);
      expect(await sha256Of(clone.path)).toBe(clone.sourceSha256);
      expect(clone.sourceSha256).toBe(await sha256Of(template));
      expect(clone.sourceSha256).not.toBe(sha256(BYTES));
    },
  );

  test('links that come and go cost a writable clone no second reading of the template', async () => {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('debian', BYTES);
    await host.registry.cloneForVm('first', 'debian', WRITABLE);
    let hashed = 0;
    whileHashing(() => hashed++);
    for (const id of ['a', 'b']) {
      await host.registry.cloneForVm(id, 'debian');
      await host.registry.cloneForVm(`${id}-writable`, 'debian', WRITABLE);
      await host.registry.release(id);
    }
    expect(hashed).toBe(0);
    for (const id of ['a-writable', 'b-writable'])
      expect(await sha256Of(host.slot(id).image)).toBe(sha256(BYTES));
  });
});

async function onExt4(skip: (why?: string) => void, config = {}): Promise<Host> {
  const { missing, path } = filesystemNamed('ext4');
  if (missing !== undefined) skip(missing);
  return Host.in(path, config);
}

test('the next process does not read a template again because of hardlinks that came and went', async ({
  skip,
}) => {
  const host = await onExt4(skip);
  await host.addTemplate('debian', BYTES);
  for (const id of ['stays', 'goes']) await host.registry.cloneForVm(id, 'debian');
  await host.registry.release('goes');
  let hashed = 0;
  whileHashing(() => hashed++);
  for (const id of ['second', 'third']) {
    const next = host.anotherRegistry();
    expect(await next.stacks()).toMatchObject([{ sha256: sha256(BYTES) }]);
    expect(await next.cloneForVm(id, 'debian')).toMatchObject({ strategy: 'hardlink' });
    await next.cloneForVm(`${id}-writable`, 'debian', WRITABLE);
    expect(await sha256Of(host.slot(`${id}-writable`).image)).toBe(sha256(BYTES));
  }
  expect(hashed).toBe(0);
});

test.for(['written to', 'replaced'])(
  'the next process sees that a template with hardlinks was %s',
  async (how, { skip }) => {
    const host = await onExt4(skip);
    const template = await host.addTemplate('debian', BYTES);
    await host.registry.cloneForVm('linked', 'debian');
    if (how === 'replaced') await rename(template, join(host.root, 'away'));
    const other = Buffer.from(BYTES).fill('other bytes', 0, 11);
    await writeFile(template, other, how === 'replaced' ? {} : { flag: 'r+' });
    expect(await host.anotherRegistry().stacks()).toMatchObject([{ sha256: sha256(other) }]);
  },
);

test('a writable clone of the next process has the bytes of its stamp, whatever was done to the template', async ({
  skip,
}) => {
  const host = await onExt4(skip);
  const template = await host.addTemplate('debian', BYTES);
  await host.registry.cloneForVm('linked', 'debian');
  await overwrite(template);
  const next = host.anotherRegistry();
  const clone = await next.cloneForVm('vm', 'debian', WRITABLE);
  expect(await sha256Of(clone.path)).toBe(clone.sourceSha256);
  expect(clone.sourceSha256).not.toBe(sha256(BYTES));
  expect(await next.stacks()).toMatchObject([{ sha256: clone.sourceSha256 }]);
});

test('an image whose times may have been given to it is read again when it was linked', async ({ skip }) => {
  const host = await onExt4(skip);
  const template = await host.addTemplate('debian', BYTES);
  await utimes(template, 1, 1);
  await host.registry.cloneForVm('linked', 'debian');
  await overwrite(template);
  expect(await host.anotherRegistry().stacks()).toMatchObject([{ sha256: await sha256Of(template) }]);
});

test('a template with hardlinks on another disk is sealed by the next process', async ({ skip }) => {
  const clones = filesystemNamed('XFS');
  if (clones.missing !== undefined) skip(clones.missing);
  const onDisk = await onExt4(skip);
  const host = await Host.in(clones.path, { templateDir: onDisk.templateDir });
  const template = await host.addTemplate('debian', BYTES);
  await host.registry.cloneForVm('first', 'debian');
  await link(template, join(onDisk.root, 'second name'));
  await overwrite(template);
  const clone = await host.anotherRegistry().cloneForVm('vm', 'debian');
  expect(clone).toMatchObject({ strategy: 'reflink', sourceSha256: await sha256Of(template) });
  expect(await sha256Of(clone.path)).toBe(clone.sourceSha256);
});
