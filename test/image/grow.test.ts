import { chmod, copyFile, link, mkdir, open, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readSuperblock } from '../../src/image/ext4.js';
import { resizeExt4Image } from '../../src/index.js';
import { exists, sha256Of, snapshot } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import {
  addUnknownFeature,
  dumpSuperblock,
  faultsOf,
  GiB,
  MiB,
  makeExt4Image,
  pattern,
  readInside,
  run,
} from '../fixtures/images.js';
import { holdLease } from '../fixtures/lease.js';
import { rejection } from '../fixtures/rejection.js';

const WRITABLE = { writable: true } as const;

interface Rig {
  readonly host: Host;
  readonly image: string;
  /** A program that behaves as told, and writes down how it was called. */
  script(name: string, body: string): Promise<string>;
}

async function rig(sizeBytes = 16 * MiB): Promise<Rig> {
  const host = await Host.in();
  const image = join(host.root, 'image.ext4');
  await makeExt4Image(image, sizeBytes);
  return {
    host,
    image,
    async script(name, body) {
      const path = join(host.root, name);
      await writeFile(path, `#!/bin/sh\necho "$@" >> ${path}.calls\n${body}\n`);
      await chmod(path, 0o755);
      return path;
    },
  };
}

describe('resizeExt4Image', () => {
  test('a resize2fs that could not write the superblock, and says nothing of it, is not believed, nor is the image later', async () => {
    const { image, script } = await rig();
    const damage = `printf 'oops' | dd of=${image} bs=1 seek=2044 conv=notrunc 2>/dev/null`;
    const resize2fsBin = await script('resize2fs', `/usr/sbin/resize2fs "$@" && ${damage}`);
    const error = await rejection(resizeExt4Image(image, 64 * MiB, { resize2fsBin }), 'RESIZE_FAILED');
    expect(error.message).toContain('does not match its checksum');
    await rejection(resizeExt4Image(image, 64 * MiB), 'E2FSCK_FAILED');
  });

  test('grows file and filesystem, and keeps what is in it', async () => {
    const { image } = await rig();
    const blob = await readInside(image, '/etc/blob');
    await resizeExt4Image(image, 64 * MiB);
    expect((await readSuperblock(image))?.sizeBytes).toBe(64 * MiB);
    expect(await faultsOf(image)).toBe('');
    expect(await readInside(image, '/etc/hostname')).toBe('microvm\n');
    expect(await readInside(image, '/etc/blob')).toBe(blob);
  });

  test.each([
    [64, 700],
    [256, 512],
    [256, 2048],
  ])('clusters of many blocks (bigalloc), from %i to %i MiB, are counted right', async (from, to) => {
    const { host } = await rig();
    const path = join(host.root, 'bigalloc.ext4');
    await makeExt4Image(path, from * MiB, ['-O', 'bigalloc', '-C', '65536']);
    await resizeExt4Image(path, to * MiB);
    expect(await faultsOf(path)).toBe('');
  });

  test.each([1, 40])('an orphan file is right after growing to %i GiB', async (to) => {
    const { host } = await rig();
    const path = join(host.root, 'orphans.ext4');
    await makeExt4Image(path, 64 * MiB, ['-O', 'orphan_file']);
    await resizeExt4Image(path, to * GiB);
    expect(await faultsOf(path)).toBe('');
  });

  test.each([
    [130, 'sparse_super2,^resize_inode'],
    [3000, 'sparse_super2'],
  ])(
    'a backup superblock that moves to the end of %i MiB (%s) leaves no blocks behind',
    async (to, features) => {
      const { host } = await rig();
      const path = join(host.root, 'backup.ext4');
      await makeExt4Image(path, 40 * MiB, ['-b', '1024', '-O', features, '-E', 'num_backup_sb=1']);
      await resizeExt4Image(path, to * MiB);
      expect(await faultsOf(path)).toBe('');
    },
  );

  test('runs resize2fs -f -- on the file that it holds', async () => {
    const { image, script } = await rig();
    const program = await script('resize2fs', 'exec /usr/sbin/resize2fs "$@"');
    await resizeExt4Image(image, 32 * MiB, { resize2fsBin: program });
    expect(await readFile(`${program}.calls`, 'utf8')).toBe('-f -- /proc/self/fd/3\n');
  });

  test.each([
    ['before e2fsck opens it', (give: string) => `${give} && exec e2fsck "$@"`, undefined],
    ['before resize2fs opens it', undefined, (give: string) => `${give} && exec resize2fs "$@"`],
    ['before a grow that failed is undone', undefined, (give: string) => `${give}; exit 1`],
  ])("a name that goes to another VM's disk %s: that disk is not touched", async (_when, fsck, resize) => {
    const { host, image, script } = await rig();
    await markUnchecked(image);
    const other = join(host.root, 'other.ext4');
    await makeExt4Image(other, 24 * MiB);
    await markUnchecked(other);
    const before = await sha256Of(other);
    const give = `mv ${other} ${image}`;
    const growing = resizeExt4Image(image, 32 * MiB, {
      e2fsckBin: await script('e2fsck', fsck?.(give) ?? 'exec e2fsck "$@"'),
      resize2fsBin: await script('resize2fs', resize?.(give) ?? 'exec resize2fs "$@"'),
    });
    const error = await rejection(growing, _when.includes('failed') ? 'RESIZE_FAILED' : 'SLOT_BUSY');
    expect(error.path).toBe(image);
    expect(await sha256Of(image)).toBe(before);
  });

  test.each(['e2fsck', 'resize2fs'])(
    'an image that a VM opens while %s runs has no other length',
    async (name) => {
      const { host, image, script } = await rig();
      await markUnchecked(image);
      const pid = join(host.root, 'pid');
      const hold = `exec 9<${image}; sleep 60 >/dev/null 2>&1 & echo $! >${pid}`;
      const program = await script(
        name,
        `${hold}; [ ${name} = resize2fs ] && exit 1; exec ${name} "$@" 9<&-`,
      );
      const growing = resizeExt4Image(image, 32 * MiB, { [`${name}Bin`]: program });
      await rejection(growing, name === 'e2fsck' ? 'SLOT_IN_USE' : 'RESIZE_FAILED');
      process.kill(Number(await readFile(pid, 'utf8')));
      // Nothing is cut off under a VM, not even to undo what failed.
      expect((await stat(image)).size).toBe((name === 'e2fsck' ? 16 : 32) * MiB);
    },
  );

  test('an image whose name looks like an option is a path', async () => {
    const { host, image } = await rig();
    const odd = join(host.root, '-M');
    await link(image, odd);
    const cwd = process.cwd();
    process.chdir(host.root);
    try {
      // Two names: refused before anything is run, but only after it was found.
      await rejection(resizeExt4Image('-M', 32 * MiB), 'SHARED_INODE');
    } finally {
      process.chdir(cwd);
    }
  });

  test('a relative path is of the folder that the process was in at the call', async () => {
    const { host, image } = await rig();
    const other = join(host.root, 'other');
    await mkdir(other);
    await copyFile(image, join(other, basename(image)));
    const cwd = process.cwd();
    process.chdir(dirname(image));
    try {
      const grown = resizeExt4Image(basename(image), 32 * MiB);
      process.chdir(other);
      await grown;
    } finally {
      process.chdir(cwd);
    }
    expect((await stat(image)).size).toBe(32 * MiB);
    expect((await stat(join(other, basename(image)))).size).toBeLessThan(32 * MiB);
  });

  test('a size that is no multiple of the block size: the file is exact, the filesystem as long as fits', async () => {
    const { image } = await rig();
    await resizeExt4Image(image, 20 * MiB + 1);
    expect((await stat(image)).size).toBe(20 * MiB + 1);
    const { blockCount, blockSize } = await dumpSuperblock(image);
    expect(20 * MiB + 1 - blockCount * blockSize).toBeLessThan(blockSize);
    await resizeExt4Image(image, 20 * MiB + 1, { resize2fsBin: '/nonexistent' });
  });

  test.each([
    // A last group too small for its own tables is left out.
    [64 * MiB, 129 * MiB, ['-b', '4096']],
    // Whole pages, of several blocks.
    [16 * MiB, 20 * MiB + 1024, ['-b', '1024']],
    // Whole clusters.
    [16 * MiB, 20 * MiB + 4096, ['-b', '4096', '-O', 'bigalloc', '-C', '65536']],
  ])('from %i to %i bytes, where the filesystem ends before its file: once', async (from, to, options) => {
    const { host } = await rig();
    const path = join(host.root, 'short.ext4');
    await makeExt4Image(path, from, options);
    await resizeExt4Image(path, to);
    const { blockCount, blockSize } = await dumpSuperblock(path);
    expect(to - blockCount * blockSize).toBeGreaterThanOrEqual(blockSize);
    await resizeExt4Image(path, to, { resize2fsBin: '/nonexistent' });
  });

  test('a program that fails is quoted with status and trimmed stderr', async () => {
    const { image, script } = await rig();
    const program = await script('resize2fs', 'echo >&2; echo "  bad luck " >&2; exit 7');
    const error = await rejection(
      resizeExt4Image(image, 32 * MiB, { resize2fsBin: program }),
      'RESIZE_FAILED',
    );
    expect(error.message).toContain('exited with status 7');
    expect(error.message).toMatch(/: bad luck$/);
    expect(error.path).toBe(image);
  });

  test('a program that is killed is a failure', async () => {
    const { image, script } = await rig();
    const program = await script('resize2fs', 'kill -KILL $$');
    const error = await rejection(
      resizeExt4Image(image, 32 * MiB, { resize2fsBin: program }),
      'RESIZE_FAILED',
    );
    expect(error.message).toContain('SIGKILL');
  });

  test('a program that says 0 and has done nothing is not believed', async () => {
    const { image, script } = await rig();
    const lazy = await script('resize2fs', 'exit 0');
    await rejection(resizeExt4Image(image, 512 * MiB, { resize2fsBin: lazy }), 'RESIZE_FAILED');
  });

  test('a program that is there but cannot be started is named, with the package that ships it', async () => {
    const { host, image } = await rig();
    const program = join(host.root, 'resize2fs');
    await writeFile(program, '#!/nonexistent/interpreter\n', { mode: 0o755 });
    const error = await rejection(
      resizeExt4Image(image, 32 * MiB, { resize2fsBin: program }),
      'RESIZE2FS_NOT_FOUND',
    );
    expect(error.message).toContain(program);
    expect(error.message).toContain('e2fsprogs');
    expect(error.message).toContain('correct the path');
  });

  test.each([
    ['corrected', 1, 'grown'],
    ['corrected, reboot wanted', 3, 'grown'],
    ['left uncorrected', 4, 'E2FSCK_FAILED'],
    ['corrected, some left', 5, 'E2FSCK_FAILED'],
    ['operational error', 8, 'E2FSCK_FAILED'],
    ['cancelled', 32, 'E2FSCK_FAILED'],
  ])('the status of e2fsck is a bit mask: %s (%i) is %s', async (_what, status, outcome) => {
    const { image, script } = await rig();
    await markUnchecked(image);
    const e2fsckBin = await script('e2fsck', `echo trouble; exit ${status}`);
    const resizing = resizeExt4Image(image, 32 * MiB, { e2fsckBin });
    if (outcome === 'grown') await resizing;
    else expect((await rejection(resizing, outcome)).message).toContain('trouble');
    expect(await readFile(`${e2fsckBin}.calls`, 'utf8')).toBe('-fp -- /proc/self/fd/3\n');
  });

  test("e2fsck does not read the host's settings", async () => {
    const { image, script } = await rig();
    await markUnchecked(image);
    const e2fsckBin = await script('e2fsck', 'echo "reads $E2FSCK_CONFIG"; exit 4');
    const { message } = await rejection(resizeExt4Image(image, 32 * MiB, { e2fsckBin }), 'E2FSCK_FAILED');
    expect(message).toContain('reads /dev/null');
  });

  test('e2fsck that dies by a signal is a failure', async () => {
    const { image, script } = await rig();
    await markUnchecked(image);
    const e2fsckBin = await script('e2fsck', 'kill -SEGV $$');
    await rejection(resizeExt4Image(image, 32 * MiB, { e2fsckBin }), 'E2FSCK_FAILED');
  });

  test('e2fsck that is missing has an error of its own, before the file is grown', async () => {
    const { image } = await rig();
    await markUnchecked(image);
    const error = await rejection(
      resizeExt4Image(image, 32 * MiB, { e2fsckBin: '/nonexistent' }),
      'E2FSCK_NOT_FOUND',
    );
    expect(error.message).toContain('e2fsprogs');
    expect((await stat(image)).size).toBe(16 * MiB);
  });

  test.each<[what: string, words: RegExp, sizeBytes: number, make: (image: string) => Promise<unknown>]>([
    ['a feature that it does not know', /a newer e2fsprogs/, 32 * MiB, addUnknownFeature],
    [
      'blocks whose numbers do not fit into 32 bits',
      /mke2fs -O 64bit/,
      4096 * GiB + MiB,
      (image) => run('mke2fs', ['-q', '-F', '-b', '1024', '-O', '^64bit', image]),
    ],
  ])('what to do is in the error of a resize2fs that fails for %s', async (_, words, sizeBytes, make) => {
    const { image } = await rig();
    await make(image);
    expect((await rejection(resizeExt4Image(image, sizeBytes), 'RESIZE_FAILED')).message).toMatch(words);
    expect((await stat(image)).size).toBe(16 * MiB);
  });

  test('an image that is clean is not checked', async () => {
    const { image } = await rig();
    await resizeExt4Image(image, 32 * MiB, { e2fsckBin: '/nonexistent' });
  });

  test('an image that some process has open is refused, untouched', async () => {
    const { image } = await rig();
    const before = await sha256Of(image);
    const file = await open(image, 'r+');
    await rejection(resizeExt4Image(image, 32 * MiB), 'SLOT_IN_USE');
    await file.close();
    expect(await sha256Of(image)).toBe(before);
  });

  test('an image on which a process keeps a lease is refused, without waiting for it', async () => {
    const { image } = await rig();
    const end = await holdLease(image);
    await rejection(resizeExt4Image(image, 32 * MiB), 'SLOT_IN_USE');
    await end();
    await resizeExt4Image(image, 32 * MiB);
  });

  test('an image under several names is refused: it may be a template', async () => {
    const { host, image } = await rig();
    await link(image, join(host.root, 'other'));
    await rejection(resizeExt4Image(image, 32 * MiB), 'SHARED_INODE');
    expect((await stat(image)).size).toBe(16 * MiB);
  });

  test.each([
    ['a short text', Buffer.from('hello\n')],
    ['noise', pattern(MiB)],
    ['nothing', Buffer.alloc(0)],
  ])('%s holds no file system: it is refused and not touched', async (_what, bytes) => {
    const { host } = await rig();
    const path = join(host.root, 'file');
    await writeFile(path, bytes);
    const before = await sha256Of(path);
    const error = await rejection(resizeExt4Image(path, 2 * MiB), 'IMAGE_INVALID');
    expect(error.message).toContain(path);
    expect(await sha256Of(path)).toBe(before);
  });

  test('bytes that are no filesystem have the size that they have', async () => {
    const { host } = await rig();
    const path = join(host.root, 'noise');
    await writeFile(path, pattern(MiB));
    await resizeExt4Image(path, MiB, { resize2fsBin: '/nonexistent' });
  });

  test.each([
    ['fails', 'exit 1', 'RESIZE_FAILED'],
    ['is killed', 'kill -KILL $$', 'RESIZE_FAILED'],
    ['is missing', undefined, 'RESIZE2FS_NOT_FOUND'],
  ])('a resize2fs that %s at once leaves the image as it was', async (_what, body, code) => {
    const { image, script } = await rig();
    const before = await sha256Of(image);
    const resize2fsBin = body === undefined ? '/nonexistent' : await script('resize2fs', body);
    await rejection(resizeExt4Image(image, 32 * MiB, { resize2fsBin }), code);
    expect(await sha256Of(image)).toBe(before);
  });

  test('what a resize2fs that failed has moved behind the old end is kept, and the retry finishes', async () => {
    const { image, script } = await rig();
    const resize2fsBin = await script('resize2fs', '/usr/sbin/resize2fs "$@" && exit 1');
    await rejection(resizeExt4Image(image, 32 * MiB, { resize2fsBin }), 'RESIZE_FAILED');
    expect((await stat(image)).size).toBe(32 * MiB);
    await resizeExt4Image(image, 64 * MiB);
    expect(await faultsOf(image)).toBe('');
  });

  test.each([
    ['missing', 'missing', 'ENOENT'],
    ['a folder', 'folder', 'INVALID_ARGUMENT'],
  ])('a path that is %s', async (_what, name, code) => {
    const { host } = await rig();
    await mkdir(join(host.root, 'folder'));
    await rejection(resizeExt4Image(join(host.root, name), MiB * 64), code);
  });

  test('an abort kills resize2fs', async () => {
    const { image, script } = await rig();
    const resize2fsBin = await script('resize2fs', 'exec sleep 60');
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 100);
    await rejection(
      resizeExt4Image(image, 32 * MiB, { resize2fsBin, signal: controller.signal }),
      'ABORT_ERR',
    );
  });

  test("a registry's programs are used", async () => {
    const { host, image } = await rig();
    const registry = host.anotherRegistry({ resize2fsBin: '/nonexistent' });
    await rejection(registry.resizeExt4Image(image, 32 * MiB), 'RESIZE2FS_NOT_FOUND');
    await host.registry.resizeExt4Image(image, 32 * MiB);
  });
});

describe('growing a slot', () => {
  test('an aborted grow leaves nothing, and the same call works afterwards', async () => {
    const { host, script } = await rig();
    await host.addExt4Template('debian', 16 * MiB);
    const slow = host.anotherRegistry({ resize2fsBin: await script('resize2fs', 'exec sleep 60') });
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 200);
    const growing = slow.cloneForVmWithSize('vm-1', 'debian', 32 * MiB, { signal: controller.signal });
    await rejection(growing, 'ABORT_ERR');
    expect(await host.slotNames()).toEqual([]);
    expect(await host.leftovers()).toEqual([]);
    expect((await host.registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB)).sizeBytes).toBe(32 * MiB);
  });

  test('a grow that fails leaves an earlier clone as it was', async () => {
    const { host, script } = await rig();
    await host.addExt4Template('debian', 16 * MiB);
    await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    const before = await snapshot(host.slot('vm-1').path);
    const broken = host.anotherRegistry({ resize2fsBin: await script('resize2fs', 'exit 1') });
    await rejection(broken.cloneForVmWithSize('vm-1', 'debian', 32 * MiB), 'RESIZE_FAILED');
    expect(await snapshot(host.slot('vm-1').path)).toEqual(before);
    expect(await host.leftovers()).toEqual([]);
  });

  test('a template that holds no ext4 is cloned at its own size only', async () => {
    const { host } = await rig();
    await host.addTemplate('noise', pattern(MiB));
    const { registry } = host;
    const grow = () =>
      rejection(registry.cloneForVmWithSize('vm-1', 'noise', 2 * MiB, WRITABLE), 'IMAGE_INVALID');
    const names = (path: string) => ({
      path,
      message: expect.stringContaining(`file system in ${path}: only`),
    });
    expect(await grow()).toMatchObject(names(host.template('noise')));
    await registry.cloneForVmWithSize('vm-1', 'noise', MiB, WRITABLE);
    const before = await snapshot(host.slot('vm-1').path);
    expect(await grow()).toMatchObject(names(host.slot('vm-1').image));
    expect(await snapshot(host.slot('vm-1').path)).toEqual(before);
    expect(await host.leftovers()).toEqual([]);
  });

  test('multiple mount protection, of a template or by a guest, is refused before a program sleeps', async () => {
    const { host } = await rig();
    await host.addExt4Template('debian', 16 * MiB);
    const { registry } = host;
    const { path } = await registry.cloneForVm('vm-1', 'debian', WRITABLE);
    await run('tune2fs', ['-O', 'mmp', '-E', 'mmp_update_interval=300', path]);
    await host.addTemplate('shared', await readFile(path));
    const before = await snapshot(host.slot('vm-1').path);
    const refused = async (vmId: string, stack: string, image: string) =>
      expect(
        await rejection(registry.cloneForVmWithSize(vmId, stack, 32 * MiB, WRITABLE), 'IMAGE_INVALID'),
      ).toMatchObject({ path: image, message: expect.stringContaining('tune2fs -f -O ^mmp') });
    await refused('vm-1', 'debian', path);
    await refused('vm-2', 'shared', host.template('shared'));
    await rejection(resizeExt4Image(path, 32 * MiB), 'IMAGE_INVALID');
    expect(await snapshot(host.slot('vm-1').path)).toEqual(before);
    await registry.cloneForVmWithSize('vm-3', 'shared', 16 * MiB, WRITABLE);
    await run('tune2fs', ['-f', '-O', '^mmp', path]);
    await registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB);
    expect(await host.leftovers()).toEqual([]);
  });

  test('an earlier clone that is in use is not replaced under its VM', async () => {
    const { host } = await rig();
    await host.addExt4Template('debian', 16 * MiB);
    const { path } = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    const before = await snapshot(host.slot('vm-1').path);
    const file = await open(path, 'r+');
    await rejection(host.registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB), 'SLOT_IN_USE');
    await file.close();
    expect(await snapshot(host.slot('vm-1').path)).toEqual(before);
    expect(await host.registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB)).toMatchObject({
      reused: true,
    });
  });

  test("keeps owner's mode and what the guest wrote before", async () => {
    const { host } = await rig();
    await host.addExt4Template('debian', 16 * MiB);
    const { path } = await host.registry.cloneForVm('vm-1', 'debian', { ...WRITABLE, mode: 0o640 });
    const file = await open(path, 'r+');
    await file.write(Buffer.from('guest'), 0, 5, 0); // the boot block, which no filesystem tool touches
    await file.close();
    await host.registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB);
    expect((await stat(path)).mode & 0o777).toBe(0o640);
    expect((await readFile(path)).subarray(0, 5).toString()).toBe('guest');
  });

  test('an interrupted grow of another program is finished: image longer, no size stamp', async () => {
    const { host } = await rig();
    await host.addExt4Template('debian', 16 * MiB);
    const { path } = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    await truncate(path, 32 * MiB);
    await rejection(host.registry.cloneForVm('vm-1', 'debian'), 'SLOT_TORN');
    await host.registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB);
    expect((await readSuperblock(path))?.sizeBytes).toBe(32 * MiB);
    expect(await exists(host.slot('vm-1').sizeStamp)).toBe(true);
  });

  test('to a size that is no multiple of the block size', async () => {
    const { host } = await rig();
    await host.addExt4Template('debian', 16 * MiB);
    const target = 20 * MiB + 1;
    const clone = await host.registry.cloneForVmWithSize('vm-1', 'debian', target);
    expect((await stat(clone.path)).size).toBe(target);
    expect(await host.registry.cloneForVmWithSize('vm-1', 'debian', target)).toMatchObject({ reused: true });
  });

  test('many at once to one size end up the same', async () => {
    const { host } = await rig();
    await host.addExt4Template('debian', 16 * MiB);
    const ids = Array.from({ length: 8 }, (_, i) => `vm-${i}`);
    const clones = await Promise.all(
      ids.map((id) => host.registry.cloneForVmWithSize(id, 'debian', 32 * MiB)),
    );
    for (const { path } of clones) expect((await readSuperblock(path))?.sizeBytes).toBe(32 * MiB);
  });
});

/** As an image is after it was filled through a loop mount. */
async function markUnchecked(image: string): Promise<void> {
  await run('debugfs', ['-w', '-R', 'ssv mtime 20380101', image]);
}
