// When the digest of a template still holds, and when it has to be computed again.

import { link, open, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { sha256, sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { whileHashing } from '../fixtures/while-hashing.js';

const BYTES = pattern(4 * MiB);
const WRITABLE = { writable: true } as const;

/** Writes to a template and puts mtime back, as a forger does, or a tool that keeps times. */
async function overwrite(path: string, text: string): Promise<void> {
  const { atime, mtime } = await stat(path);
  const file = await open(path, 'r+');
  await file.write(Buffer.from(text), 0, text.length, 3 * MiB);
  await file.close();
  await utimes(path, atime, mtime);
}

describeEachFilesystem((filesystem) => {
  test.each([
    ['a writable clone', WRITABLE, {}],
    ['a clone', {}, {}],
    ['a read-only clone', { writable: false }, {}],
    ['a writable clone, not sealed,', WRITABLE, { sealing: 'off' }],
    ['a clone, not sealed,', {}, { sealing: 'off' }],
  ] as const)(
    '%s has the bytes of its stamp, whatever was done to its template',
    async (_, options, config) => {
      const host = await Host.in(filesystem.path, config);
      const template = await host.addTemplate('debian', BYTES);
      await host.registry.stacks();
      await host.registry.cloneForVm('before', 'debian', options);
      for (const [id, disguise] of [
        ['plain', async () => {}],
        ['linked', () => link(template, join(host.root, 'second name'))],
      ] as const) {
        await disguise();
        // Its times have whole seconds, and those of one second are one.
        if (filesystem.name === 'FUSE (fuse2fs)') await sleep(1100);
        await overwrite(template, id);
        const clone = await host.registry.cloneForVm(id, 'debian', options);
        const now = await sha256Of(template);
        expect([await sha256Of(clone.path), clone.sourceSha256]).toEqual([now, now]);
        expect((await host.registry.stack('debian'))?.sha256).toBe(now);
      }
    },
  );

  test('clones that are hardlinks, many at once, cost no second reading of the template', async () => {
    const host = await Host.in(filesystem.path, { sealing: 'off' });
    await host.addTemplate('debian', BYTES);
    await host.registry.cloneForVm('first', 'debian');
    let hashed = 0;
    whileHashing(() => hashed++);
    const ids = Array.from({ length: 40 }, (_, i) => `vm-${i}`);
    await Promise.all(ids.map((id) => host.registry.cloneForVm(id, 'debian')));
    await host.registry.cloneMany(ids.map((id) => ({ vmId: `${id}-more`, stack: 'debian' })));
    await Promise.all(ids.map((id) => host.registry.release(id)));
    await host.registry.drain();
    await host.registry.cloneForVm('last', 'debian');
    expect((await host.registry.stack('debian'))?.sha256).toBe(sha256(BYTES));
    // FUSE tells an older ctime for a while.
    if (!filesystem.name.startsWith('FUSE')) expect(hashed).toBe(0);
  });

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
    if (!filesystem.name.startsWith('FUSE')) expect(hashed).toBe(0);
    for (const id of ['a-writable', 'b-writable'])
      expect(await sha256Of(host.slot(id).image)).toBe(sha256(BYTES));
  });
});
