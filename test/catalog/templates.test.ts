// When the digest of a template still holds, and when it has to be computed again.

import { link, open, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
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
