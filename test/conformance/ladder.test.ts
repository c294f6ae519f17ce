// reflink, hardlink, copy: which rung is taken on which filesystem, what the result says of it, and what a hardlink
// must not do.
import { open, readFile, stat } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { sha256Of, snapshot } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacksRoot } from '../fixtures/tools.js';

const BYTES = pattern(2 * MiB);

describeEachFilesystem((filesystem) => {
  const { reflinks } = filesystem;
  const noReflink = reflinks ? [] : [{ strategy: 'reflink', code: 'ENOTSUP' }];

  async function newHost(): Promise<Host> {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('debian', BYTES);
    return host;
  }

  test.each([
    ['not given', {}],
    ['false', { writable: false }],
  ])('writable %s: the cheapest way that there is', async (_what, options) => {
    const host = await newHost();
    const clone = await host.registry.cloneForVm('vm-1', 'debian', options);
    expect(clone).toMatchObject({
      strategy: reflinks ? 'reflink' : 'hardlink',
      sharesTemplateInode: !reflinks,
      attempts: noReflink,
    });
    const [image, template] = await Promise.all([stat(clone.path), stat(host.template('debian'))]);
    expect(image.ino === template.ino).toBe(!reflinks);
  });

  test('writable true: a file of its own, which can be written without changing the template', async () => {
    const host = await newHost();
    const clone = await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
    expect(clone).toMatchObject({
      strategy: reflinks ? 'reflink' : 'copy',
      sharesTemplateInode: false,
      attempts: noReflink,
    });
    const file = await open(clone.path, 'r+');
    await file.write(Buffer.from('guest'), 0, 5, 4096);
    await file.close();
    expect(await sha256Of(host.template('debian'))).toBe(clone.sourceSha256);
    expect(await sha256Of(clone.path)).not.toBe(clone.sourceSha256);
    const second = await host.registry.cloneForVm('vm-2', 'debian', { writable: true });
    expect(await sha256Of(second.path)).toBe(clone.sourceSha256);
  });

  test('sealing off: the same, straight from the template', async () => {
    const host = await newHost();
    const registry = host.anotherRegistry({ sealing: 'off' });
    const clone = await registry.cloneForVm('vm-1', 'debian', { writable: true });
    expect(clone).toMatchObject({ strategy: reflinks ? 'reflink' : 'copy', attempts: noReflink });
    expect(await sha256Of(clone.path)).toBe(clone.sourceSha256);
  });

  test('a slot that is reused says how it was made, as far as the disk tells', async () => {
    const host = await newHost();
    // Without FIEMAP nothing tells a reflink from a copy.
    const told = (strategy: string) => (strategy === 'reflink' && !filesystem.fiemap ? 'copy' : strategy);
    const made = await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
    const again = await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
    expect(again).toMatchObject({
      reused: true,
      attempts: [],
      strategy: told(made.strategy),
      path: made.path,
    });
    const plain = await host.registry.cloneForVm('vm-2', 'debian', { writable: false });
    const plainAgain = await host.registry.cloneForVm('vm-2', 'debian');
    expect(plainAgain).toMatchObject({
      strategy: told(plain.strategy),
      sharesTemplateInode: plain.sharesTemplateInode,
    });
  });

  test('the template keeps its bytes, owner, mode and time whatever is cloned', async () => {
    const host = await newHost();
    const before = await snapshot(host.templateDir);
    await host.registry.cloneForVm('a', 'debian', { writable: true });
    await host.registry.cloneForVm('b', 'debian', { writable: false });
    await host.registry.cloneForVm('c', 'debian', { writable: true, mode: 0o666, durable: true });
    for (const id of ['a', 'b', 'c']) await host.registry.release(id);
    await host.registry.drain();
    expect(await snapshot(host.templateDir)).toEqual(before);
  });

  test('owner and mode', async ({ skip }) => {
    const reason = lacksRoot();
    if (reason !== undefined) skip(reason);
    const host = await newHost();
    const owner = { uid: 1234, gid: 4321 };
    const options = { writable: true, owner, mode: 0o640 };
    const { path } = await host.registry.cloneForVm('vm-1', 'debian', options);
    const { uid, gid, mode } = await stat(path);
    expect([uid, gid, mode & 0o7777]).toEqual([1234, 4321, 0o640]);
    expect(await host.registry.cloneForVm('vm-1', 'debian', options)).toMatchObject({ reused: true });
  });

  test('durable: image, stamps and folders are flushed, the result is the same', async () => {
    const host = await newHost();
    const clone = await host.registry.cloneForVm('vm/1', 'debian', { writable: true, durable: true });
    expect(await sha256Of(clone.path)).toBe(clone.sourceSha256);
    expect(await readFile(host.slot('vm_1').rawId, 'utf8')).toBe('vm/1');
    expect(await host.registry.release('vm/1', { durable: true })).toBe(true);
  });
});

describeEachFilesystem(
  (filesystem) => {
    async function newHost(): Promise<Host> {
      const host = await Host.in(filesystem.path);
      await host.addTemplate('debian', BYTES);
      return host;
    }

    test.each([
      ['mode', { mode: 0o640 }],
      ['owner', { owner: { uid: 0, gid: 0 } }],
    ])('%s on the hardlink rung is refused, nothing appears, the template stays', async (_what, options) => {
      const host = await newHost();
      const before = await snapshot(host.templateDir);
      await rejection(host.registry.cloneForVm('vm-1', 'debian', options), 'SHARED_INODE');
      await rejection(
        host.registry.cloneForVm('vm-1', 'debian', { ...options, writable: false }),
        'SHARED_INODE',
      );
      expect(await host.slotNames()).toEqual([]);
      expect(await host.leftovers()).toEqual([]);
      expect(await snapshot(host.templateDir)).toEqual(before);
    });

    test('mode on a slot that is a hardlink already is refused', async () => {
      const host = await newHost();
      await host.registry.cloneForVm('vm-1', 'debian', { writable: false });
      const before = await snapshot(host.templateDir);
      await rejection(host.registry.cloneForVm('vm-1', 'debian', { mode: 0o640 }), 'SHARED_INODE');
      expect(await snapshot(host.templateDir)).toEqual(before);
    });

    test('writable true makes a slot independent that was a hardlink', async () => {
      const host = await newHost();
      await host.registry.cloneForVm('vm-1', 'debian', { writable: false });
      const clone = await host.registry.cloneForVm('vm-1', 'debian', { writable: true, mode: 0o640 });
      expect(clone).toMatchObject({ reused: true, strategy: 'copy', sharesTemplateInode: false });
      const image = await stat(clone.path);
      expect(image.ino).not.toBe((await stat(host.template('debian'))).ino);
      expect(image.mode & 0o777).toBe(0o640);
      expect(await sha256Of(clone.path)).toBe(clone.sourceSha256);
    });

    test('a template with many hardlinked clones stays the same template', async () => {
      const host = await newHost();
      for (let i = 0; i < 10; i++) {
        const clone = await host.registry.cloneForVm(`vm-${i}`, 'debian', { writable: false });
        expect(clone).toMatchObject({ reused: false, strategy: 'hardlink' });
      }
      for (let i = 0; i < 10; i++) await host.registry.release(`vm-${i}`);
      expect(await sha256Of(host.template('debian'))).toBe((await host.registry.stack('debian'))?.sha256);
    });
  },
  ({ reflinks }) => !reflinks,
);
