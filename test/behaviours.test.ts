// The contract's list of behaviours, one test each, under its own number; on every filesystem where a filesystem has a
// say.
import { appendFile, mkdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  configFromEnv,
  DEFAULT_CLONES_DIR,
  DEFAULT_RESIZE2FS_BIN,
  DEFAULT_TEMPLATE_DIR,
  hashFile,
  RootfsRegistry,
  resizeExt4Image,
} from '../src/index.js';
import { describeEachFilesystem } from './fixtures/each-filesystem.js';
import { exists, readRange, sha256, sha256Of, snapshot } from './fixtures/files.js';
import { Host } from './fixtures/host.js';
import { dumpSuperblock, MiB, makeExt4Image, pattern } from './fixtures/images.js';
import { rejection } from './fixtures/rejection.js';

const TEMPLATE_BYTES = 4 * MiB;
const TARGET_BYTES = 8 * MiB;
const NO_PROGRAM = '/nonexistent/resize2fs';

/** What this process has read so far, cached or not. */
async function bytesRead(): Promise<number> {
  return Number(/^rchar: (\d+)/.exec(await readFile('/proc/self/io', 'utf8'))?.[1]);
}

describeEachFilesystem((filesystem) => {
  const newHost = (config = {}) => Host.in(filesystem.path, config);

  test('01 stacks lists all folders with an image, with distinct digests', async () => {
    const host = await newHost();
    await host.addTemplate('debian', 'debian');
    await host.addTemplate('alpine', 'alpine');
    await mkdir(join(host.templateDir, 'empty'));
    await writeFile(join(host.templateDir, 'file'), '');
    expect(await host.registry.stacks()).toEqual([
      { name: 'alpine', templatePath: host.template('alpine'), sizeBytes: 6, sha256: sha256('alpine') },
      { name: 'debian', templatePath: host.template('debian'), sizeBytes: 6, sha256: sha256('debian') },
    ]);
  });

  test('02 stacks is empty when the template folder is missing', async () => {
    const host = await newHost();
    await rm(host.templateDir, { recursive: true });
    expect(await host.registry.stacks()).toEqual([]);
  });

  test('03 stack by name, undefined for a missing one', async () => {
    const host = await newHost();
    await host.addTemplate('debian', 'debian');
    await mkdir(join(host.templateDir, 'empty'));
    expect(await host.registry.stack('debian')).toMatchObject({ name: 'debian', sha256: sha256('debian') });
    expect(await host.registry.stack('empty')).toBeUndefined();
    expect(await host.registry.stack('missing')).toBeUndefined();
  });

  test('04 a second look-up does not read the file again', async () => {
    const host = await newHost();
    await host.addTemplate('debian', pattern(8 * MiB));
    const start = await bytesRead();
    await host.registry.stack('debian');
    const afterFirst = await bytesRead();
    await host.registry.stack('debian');
    await host.registry.stacks();
    const afterMore = await bytesRead();
    expect(afterFirst - start).toBeGreaterThanOrEqual(8 * MiB);
    expect(afterMore - afterFirst).toBeLessThan(4 * MiB);
  });

  test('05 a changed mtime is seen', async () => {
    const host = await newHost();
    const path = await host.addTemplate('debian', 'before');
    const before = await host.registry.stack('debian');
    await writeFile(path, 'after!');
    await utimes(path, new Date(), new Date(Date.now() + 5000));
    const after = await host.registry.stack('debian');
    expect([before?.sha256, after?.sha256]).toEqual([sha256('before'), sha256('after!')]);
  });

  test('06 a change with size or inode changed and mtime put back is seen', async () => {
    const host = await newHost();
    const path = await host.addTemplate('debian', 'before');
    await host.registry.stack('debian');
    const { atime, mtime } = await stat(path);

    await appendFile(path, '+');
    await utimes(path, atime, mtime);
    expect((await host.registry.stack('debian'))?.sha256).toBe(sha256('before+'));

    const other = join(host.root, 'other');
    await writeFile(other, 'inode!!');
    await utimes(other, atime, mtime);
    await rename(other, path);
    expect((await host.registry.stack('debian'))?.sha256).toBe(sha256('inode!!'));
  });

  test("07 clone has the template's bytes, stamp, no size stamp", async () => {
    const host = await newHost();
    const bytes = pattern(TEMPLATE_BYTES);
    await host.addTemplate('debian', bytes);
    const clone = await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
    const slot = host.slot('vm-1');
    expect(clone).toMatchObject({
      vmId: 'vm-1',
      stack: 'debian',
      path: slot.image,
      sourceSha256: sha256(bytes),
      sizeBytes: TEMPLATE_BYTES,
      sharesTemplateInode: false,
      reused: false,
    });
    expect(await sha256Of(slot.image)).toBe(sha256(bytes));
    expect(await readFile(slot.stamp, 'utf8')).toBe(sha256(bytes));
    expect(await exists(slot.sizeStamp)).toBe(false);
  });

  test('08 cloning is idempotent', async () => {
    const host = await newHost();
    await host.addTemplate('debian', pattern(MiB));
    const first = await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
    const before = await snapshot(host.slot('vm-1').path);
    const second = await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
    expect(second).toMatchObject({ path: first.path, sourceSha256: first.sourceSha256, reused: true });
    expect(await snapshot(host.slot('vm-1').path)).toEqual(before);
  });

  test('09 a stamp mismatch is refused, the clone is untouched', async () => {
    const host = await newHost();
    await host.addTemplate('debian', 'version 1');
    await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
    const before = await snapshot(host.slot('vm-1').path);
    await host.addTemplate('debian', 'version 2');
    await rejection(host.registry.cloneForVm('vm-1', 'debian', { writable: true }), 'STAMP_MISMATCH');
    expect(await snapshot(host.slot('vm-1').path)).toEqual(before);
  });

  test('10 an unknown stack is refused', async () => {
    const host = await newHost();
    await rejection(host.registry.cloneForVm('vm-1', 'nope'), 'STACK_NOT_FOUND');
    expect(await host.slotNames()).toEqual([]);
  });

  test('11 works with or without reflink, and says how', async () => {
    const host = await newHost();
    await host.addTemplate('debian', pattern(MiB));
    const clone = await host.registry.cloneForVm('vm-1', 'debian', { writable: false });
    const plain = filesystem.reflinks ? 'reflink' : 'hardlink';
    expect(clone).toMatchObject({ strategy: plain, sharesTemplateInode: plain === 'hardlink' });
    const own = await host.registry.cloneForVm('vm-2', 'debian', { writable: true });
    expect(own.strategy).toBe(filesystem.reflinks ? 'reflink' : 'copy');
    expect(await sha256Of(clone.path)).toBe(clone.sourceSha256);
  });

  test('12 the id is sanitised in the path', async () => {
    const host = await newHost();
    await host.addTemplate('debian', 'debian');
    const clone = await host.registry.cloneForVm('team/vm 1🦀', 'debian', { writable: true });
    expect(clone).toMatchObject({ vmId: 'team_vm_1_', path: host.slot('team_vm_1_').image });
    expect(await exists(clone.path)).toBe(true);
  });

  test('13 an empty id is refused', async () => {
    const host = await newHost();
    await host.addTemplate('debian', 'debian');
    await rejection(host.registry.cloneForVm('', 'debian'), 'INVALID_VM_ID');
    expect(await host.slotNames()).toEqual([]);
  });

  test('14 release removes the slot, twice is fine', async () => {
    const host = await newHost();
    await host.addTemplate('debian', 'debian');
    await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
    expect(await host.registry.release('vm-1')).toBe(true);
    expect(await exists(host.slot('vm-1').path)).toBe(false);
    expect(await host.registry.release('vm-1')).toBe(false);
    expect(await exists(host.template('debian'))).toBe(true);
  });

  test('17 a size equal to the source never spawns', async () => {
    const host = await newHost({ resize2fsBin: NO_PROGRAM, e2fsckBin: NO_PROGRAM });
    await host.addExt4Template('debian', TEMPLATE_BYTES);
    const clone = await host.registry.cloneForVmWithSize('vm-1', 'debian', TEMPLATE_BYTES, {
      writable: false,
    });
    expect(clone.sizeBytes).toBe(TEMPLATE_BYTES);
    expect(await exists(host.slot('vm-1').sizeStamp)).toBe(false);
  });

  test('18 a smaller target is refused, no slot folder appears', async () => {
    const host = await newHost();
    await host.addExt4Template('debian', TEMPLATE_BYTES);
    const error = await rejection(
      host.registry.cloneForVmWithSize('vm-1', 'debian', TEMPLATE_BYTES - 1),
      'SHRINK_REFUSED',
    );
    expect(error.message).toContain('resize-down would lose data');
    expect(await host.slotNames()).toEqual([]);
  });

  test("19 grown: length, head bytes, zero tail, size stamp; the template's length and bytes unchanged", async () => {
    const host = await newHost();
    const template = await host.addExt4Template('debian', TEMPLATE_BYTES);
    const digest = await sha256Of(template);
    const clone = await host.registry.cloneForVmWithSize('vm-1', 'debian', TARGET_BYTES);
    const slot = host.slot('vm-1');
    expect(clone).toMatchObject({
      sizeBytes: TARGET_BYTES,
      sourceSha256: digest,
      sharesTemplateInode: false,
    });
    expect((await stat(slot.image)).size).toBe(TARGET_BYTES);
    // The first KiB is before the superblock: growing leaves it alone.
    expect(await readRange(slot.image, 0, 1024)).toEqual(await readRange(template, 0, 1024));
    expect(await readRange(slot.image, TARGET_BYTES - 4096, 4096)).toEqual(Buffer.alloc(4096));
    expect(await readFile(slot.sizeStamp, 'utf8')).toBe(String(TARGET_BYTES));
    expect(await readFile(slot.stamp, 'utf8')).toBe(digest);
    expect((await stat(template)).size).toBe(TEMPLATE_BYTES);
    expect(await sha256Of(template)).toBe(digest);
  });

  test('20 an earlier hardlinked clone is unlinked from the template before growing', async () => {
    const host = await newHost();
    const template = await host.addExt4Template('debian', TEMPLATE_BYTES);
    const digest = await sha256Of(template);
    const plain = await host.registry.cloneForVm('vm-1', 'debian', { writable: false });
    expect(plain.sharesTemplateInode).toBe(!filesystem.reflinks);
    const grown = await host.registry.cloneForVmWithSize('vm-1', 'debian', TARGET_BYTES);
    expect(grown).toMatchObject({ reused: true, sharesTemplateInode: false, sizeBytes: TARGET_BYTES });
    expect((await stat(grown.path)).ino).not.toBe((await stat(template)).ino);
    // FUSE keeps the name of a file that was open for a moment.
    await expect.poll(async () => (await stat(template)).nlink, { timeout: 5000 }).toBe(1);
    expect(await sha256Of(template)).toBe(digest);
  });

  test("21 growing is idempotent, the size stamp's mtime unchanged", async () => {
    const host = await newHost();
    await host.addExt4Template('debian', TEMPLATE_BYTES);
    await host.registry.cloneForVmWithSize('vm-1', 'debian', TARGET_BYTES);
    const before = await snapshot(host.slot('vm-1').path);
    const again = await host.registry.cloneForVmWithSize('vm-1', 'debian', TARGET_BYTES);
    expect(again).toMatchObject({ reused: true, sizeBytes: TARGET_BYTES });
    expect(await snapshot(host.slot('vm-1').path)).toEqual(before);
  });

  test("22 another target is refused, the clone's length and mtime unchanged", async () => {
    const host = await newHost();
    await host.addExt4Template('debian', TEMPLATE_BYTES);
    await host.registry.cloneForVmWithSize('vm-1', 'debian', TARGET_BYTES);
    const before = await snapshot(host.slot('vm-1').path);
    await rejection(
      host.registry.cloneForVmWithSize('vm-1', 'debian', 2 * TARGET_BYTES),
      'SIZE_STAMP_MISMATCH',
    );
    expect(await snapshot(host.slot('vm-1').path)).toEqual(before);
  });

  test("23 a grown slot asked for the template's size is refused", async () => {
    const host = await newHost();
    await host.addExt4Template('debian', TEMPLATE_BYTES);
    await host.registry.cloneForVmWithSize('vm-1', 'debian', TARGET_BYTES);
    const before = await snapshot(host.slot('vm-1').path);
    await rejection(
      host.registry.cloneForVmWithSize('vm-1', 'debian', TEMPLATE_BYTES),
      'SIZE_STAMP_MISMATCH',
    );
    expect(await snapshot(host.slot('vm-1').path)).toEqual(before);
  });

  test('24 raw resize: smaller refused, equal a no-op, grown with zero tail, failing binary, missing binary', async () => {
    const host = await newHost();
    const image = join(host.root, 'raw.ext4');
    await makeExt4Image(image, TEMPLATE_BYTES);
    const failing = join(host.root, 'failing');
    await writeFile(failing, '#!/bin/sh\necho "  no luck today  " >&2\nexit 3\n', { mode: 0o755 });

    await rejection(resizeExt4Image(image, TEMPLATE_BYTES - 1), 'SHRINK_REFUSED');
    const before = await snapshot(host.root);
    await resizeExt4Image(image, TEMPLATE_BYTES, { resize2fsBin: NO_PROGRAM });
    expect(await snapshot(host.root)).toEqual(before);

    const missing = await rejection(
      resizeExt4Image(image, TARGET_BYTES, { resize2fsBin: NO_PROGRAM }),
      'RESIZE2FS_NOT_FOUND',
    );
    expect(missing.message).toContain(NO_PROGRAM);
    expect(missing.message).toContain('e2fsprogs');
    const failed = await rejection(
      resizeExt4Image(image, TARGET_BYTES, { resize2fsBin: failing }),
      'RESIZE_FAILED',
    );
    expect(failed.message).toMatch(/status 3\b.*: no luck today$/);

    await resizeExt4Image(image, TARGET_BYTES);
    expect((await stat(image)).size).toBe(TARGET_BYTES);
    expect(await readRange(image, TARGET_BYTES - 4096, 4096)).toEqual(Buffer.alloc(4096));
  });

  test('25 a real ext4 image grown from 4 MiB to 8 MiB shows 2048 blocks in dumpe2fs', async () => {
    const host = await newHost();
    await host.addExt4Template('debian', TEMPLATE_BYTES, ['-b', '4096']);
    const clone = await host.registry.cloneForVmWithSize('vm-1', 'debian', TARGET_BYTES);
    expect(await dumpSuperblock(clone.path)).toEqual({ blockCount: 2048, blockSize: 4096 });
  });
});

describe('anywhere', () => {
  test('15 SHA-256 of "abc", of nothing, of 10 MiB of zeros, of a missing path', async () => {
    const host = await Host.in();
    const file = async (name: string, contents: Buffer | string) => {
      const path = join(host.root, name);
      await writeFile(path, contents);
      return path;
    };
    expect(await hashFile(await file('abc', 'abc'))).toBe(
      'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
    );
    expect(await hashFile(await file('nothing', ''))).toBe(
      'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    );
    expect(await hashFile(await file('zeros', Buffer.alloc(10 * MiB)))).toBe(
      'e5b844cc57f57094ea4585e235f36c78c1cd222262bb89d53c94dcb4d6b3e55d',
    );
    const missing = join(host.root, 'missing');
    expect(await rejection(hashFile(missing), 'ENOENT')).toMatchObject({ path: missing });
  });

  test('16 environment overrides and defaults', () => {
    expect(configFromEnv({})).toMatchObject({
      templateDir: DEFAULT_TEMPLATE_DIR,
      clonesDir: DEFAULT_CLONES_DIR,
      resize2fsBin: DEFAULT_RESIZE2FS_BIN,
    });
    expect([DEFAULT_TEMPLATE_DIR, DEFAULT_CLONES_DIR, DEFAULT_RESIZE2FS_BIN]).toEqual([
      '/var/lib/microvm/rootfs-templates',
      '/var/lib/microvm/rootfs',
      'resize2fs',
    ]);
    const registry = RootfsRegistry.fromEnv({
      MICROVM_ROOTFS_TEMPLATE_DIR: '/srv/templates',
      MICROVM_ROOTFS_CLONES_DIR: '/srv/clones',
      MICROVM_RESIZE2FS_BIN: '/opt/resize2fs',
    });
    expect(registry.config).toMatchObject({
      templateDir: '/srv/templates',
      clonesDir: '/srv/clones',
      resize2fsBin: '/opt/resize2fs',
    });
  });
});
