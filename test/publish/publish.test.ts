// Publishing: every kind of source, on every filesystem.
import { execFile } from 'node:child_process';
import { fstatSync, readdirSync } from 'node:fs';
import { mkdir, readFile, readlink, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { native } from '../../src/addon/native.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { allocatedBytes, exists, sha256Of, snapshot } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { faultsOf, GiB, MiB, makeExt4Image, readInside, run } from '../fixtures/images.js';
import { lacks } from '../fixtures/tools.js';
import { copyTree, describeTree, makeTree, tarTree } from '../fixtures/trees.js';
import { newWorkspace } from '../fixtures/workspace.js';

const execute = promisify(execFile);

describeEachFilesystem((filesystem) => {
  test('a raw image is published as it is, with its holes, read-only, and can be cloned', async () => {
    const host = await Host.in(filesystem.path);
    const source = join(host.root, 'image');
    await makeExt4Image(source, 16 * MiB);
    const before = await snapshot(host.root);
    const published = await host.registry.publishStack('debian', source);
    const sha256 = await sha256Of(source);
    expect(published).toEqual({
      name: 'debian',
      templatePath: host.template('debian'),
      sizeBytes: 16 * MiB,
      sha256,
      replaced: false,
      format: 'raw',
    });
    expect(await sha256Of(host.template('debian'))).toBe(sha256);
    expect((await stat(host.template('debian'))).mode & 0o7777).toBe(0o444);
    if (filesystem.seekHole)
      expect(await allocatedBytes(host.template('debian'))).toBeLessThanOrEqual(await allocatedBytes(source));
    expect((await snapshot(host.root)).image).toBe(before.image);
    expect(await host.stagedInCatalog()).toEqual([]);
    const clone = await host.registry.cloneForVm('vm', 'debian', { writable: true });
    expect(clone.sourceSha256).toBe(sha256);
    expect(await host.anotherRegistry().stacks()).toMatchObject([{ name: 'debian', sha256 }]);
  });

  test('the blocks of a replaced image are not freed on the event loop', async () => {
    const host = await Host.in(filesystem.path);
    const source = join(host.root, 'image');
    await makeExt4Image(source, 16 * MiB);
    await host.registry.publishStack('debian', source);
    await host.registry.cloneForVm('vm', 'debian', { writable: true });
    const { ino } = await stat(host.template('debian'));
    const dispose = native().dispose.bind(native());
    const left: number[] = [];
    const spy = vi.spyOn(native(), 'dispose').mockImplementation((handle) => {
      const before = descriptorsOf(ino);
      dispose(handle);
      if (descriptorsOf(ino) < before) left.push(descriptorsOf(ino));
    });
    onTestFinished(() => spy.mockRestore());
    await host.registry.publishStack('debian', source, { replace: true });
    // Whoever closes the last one frees the blocks.
    expect(left).not.toEqual([]);
    expect(left).not.toContain(0);
    expect(descriptorsOf(ino)).toBe(0);
  });

  test('publishing records the name of the stack, so that its first clone flushes nothing', async () => {
    const host = await Host.in(filesystem.path);
    const source = join(host.root, 'image');
    await makeExt4Image(source, 16 * MiB);
    const { sha256: before } = await host.registry.publishStack('without-clones', source);
    const recorded = (digest: string) => join(host.clonesDir, '.microvm-rootfs/stacks', digest);
    expect(await exists(host.clonesDir)).toBe(false);
    await host.registry.cloneForVm('vm-1', 'without-clones', { writable: true });
    expect(await readlink(recorded(before))).toBe('without-clones');

    await truncate(source, 20 * MiB);
    const { sha256 } = await host.registry.publishStack('debian', source);
    expect(await readlink(recorded(sha256))).toBe('debian');
    const slot = await host.registry.cloneForVm('vm-2', 'debian', { writable: true });
    expect(slot.sourceSha256).toBe(sha256);
    expect(await exists(join(host.clonesDir, 'vm-2/rootfs.ext4.stack'))).toBe(false);
  });

  test('a folder is published with all that is in it, and gives the same digest again and elsewhere', async ({
    skip,
  }) => {
    const missing = lacks('mke2fs', 'setfattr');
    if (missing !== undefined) skip(missing);
    const host = await Host.in(filesystem.path);
    // The tree lies where all that it holds can be kept.
    const elsewhere = await Host.in();
    const tree = join(elsewhere.root, 'tree');
    await mkdir(tree);
    await makeTree(tree);
    const { sha256, format } = await host.registry.publishStack('debian', tree);
    expect(format).toBe('folder');
    expect(await faultsOf(host.template('debian'))).toBe('');
    const again = await host.registry.publishStack('debian', tree, { replace: true, expectedSha256: sha256 });
    expect(again).toMatchObject({ sha256, replaced: true });
    expect(await elsewhere.registry.publishStack('debian', tree)).toMatchObject({ sha256 });
    expect(await host.stagedInCatalog()).toEqual([]);
  });

  test('another image takes the place of the first one only if told to, and its clones stay', async () => {
    const host = await Host.in(filesystem.path);
    const [first, second] = [join(host.root, 'first'), join(host.root, 'second')];
    await makeExt4Image(first, 8 * MiB);
    await makeExt4Image(second, 9 * MiB);
    await host.registry.publishStack('debian', first);
    const clone = await host.registry.cloneForVm('vm', 'debian');
    await expect(host.registry.publishStack('debian', second)).rejects.toMatchObject({
      code: 'STACK_EXISTS',
    });
    expect(await sha256Of(host.template('debian'))).toBe(await sha256Of(first));
    const published = await host.registry.publishStack('debian', second, { replace: true });
    expect(published).toMatchObject({ replaced: true, sha256: await sha256Of(second) });
    expect(await sha256Of(host.template('debian'))).toBe(published.sha256);
    expect(await sha256Of(clone.path)).toBe(await sha256Of(first));
    await expect(host.registry.cloneForVm('vm', 'debian')).rejects.toMatchObject({ code: 'STAMP_MISMATCH' });
    expect((await host.registry.cloneForVm('vm-2', 'debian')).sourceSha256).toBe(published.sha256);
  });

  test('a published stack is removed, and can be published again', async () => {
    const host = await Host.in(filesystem.path);
    const source = join(host.root, 'image');
    await makeExt4Image(source, 8 * MiB);
    await host.registry.publishStack('debian', source);
    expect(await host.registry.removeStack('debian')).toBe(true);
    // There the folder goes with its hidden file, or with the next stack of that name.
    if (!filesystem.hidesOpenFiles) expect(await exists(join(host.templateDir, 'debian'))).toBe(false);
    expect(await host.registry.stacks()).toEqual([]);
    expect(await host.registry.removeStack('debian')).toBe(false);
    expect((await host.registry.publishStack('debian', source)).replaced).toBe(false);
  });
});

describe('a tree', () => {
  test('is in the image with owners, modes, devices, links, attributes and odd names', async ({ skip }) => {
    const missing = lacks('mke2fs', 'setfattr');
    if (missing !== undefined) skip(missing);
    const host = await Host.in();
    const tree = join(host.root, 'tree');
    await mkdir(tree);
    await makeTree(tree);
    await host.registry.publishStack('debian', tree);
    const clone = await host.registry.cloneForVm('vm', 'debian', { writable: true });
    const mounted = newWorkspace().mount('image', ['-o', 'loop', clone.path]);
    expect(await describeTree(mounted)).toBe(await describeTree(tree));
    const root = await run('debugfs', ['-R', 'stat <2>', host.template('debian')]);
    expect(root.stdout).toMatch(/Mode: +0755 .*\n.*\nUser: +0 +Group: +0 /);
  });

  test('gives the same digest on other filesystems, as a copy, and as a tar', async ({ skip }) => {
    const missing = lacks('mke2fs', 'setfattr', 'tar', 'zstd');
    if (missing !== undefined) skip(missing);
    const host = await Host.in();
    const tree = join(host.root, 'tree');
    await mkdir(tree);
    await makeTree(tree);
    const { sha256 } = await host.registry.publishStack('original', tree);
    await copyTree(tree, join(host.root, 'copy'));
    await tarTree(tree, join(host.root, 'tree:1.tar'));
    await run('zstd', ['-q', join(host.root, 'tree:1.tar')]);
    // Files without their folders: those get the time of unpacking.
    await tarTree(tree, join(host.root, 'folderless.tar'), ['etc/hostname', 'deep/er/and/deeper/sparse']);
    expect((await host.registry.publishStack('copy', join(host.root, 'copy'))).sha256).toBe(sha256);
    expect(await host.registry.publishStack('tar', join(host.root, 'tree:1.tar'))).toMatchObject({
      sha256,
      format: 'tar',
    });
    const compressed = await host.registry.publishStack('tar.zst', join(host.root, 'tree:1.tar.zst'));
    expect(compressed).toMatchObject({ sha256, format: 'zstd' });
    const bare = await host.registry.publishStack('bare', join(host.root, 'folderless.tar'));
    await new Promise((resolve) => setTimeout(resolve, 1100)); // the images' times are of whole seconds
    const options = { expectedSha256: bare.sha256, replace: true };
    await host.registry.publishStack('bare', join(host.root, 'folderless.tar'), options);
  });

  test.each([
    ['without a size', undefined],
    ['with a small one', 16 * MiB],
  ])('%s grows far, and is clean then', async (_, sizeBytes) => {
    const host = await Host.in();
    const tree = join(host.root, 'tree');
    await mkdir(tree);
    await writeFile(join(tree, 'file'), 'contents\n');
    const published = await host.registry.publishStack(
      'debian',
      tree,
      sizeBytes === undefined ? {} : { sizeBytes },
    );
    expect(published.sizeBytes).toBe(sizeBytes ?? 128 * MiB);
    const clone = await host.registry.cloneForVmWithSize('vm', 'debian', 20 * GiB, { writable: true });
    expect(await faultsOf(clone.path)).toBe('');
    expect(await readInside(clone.path, '/file')).toBe('contents\n');
  });

  test('of many small files has room for them, and for more', async () => {
    const host = await Host.in();
    const tree = join(host.root, 'tree');
    await mkdir(tree);
    const script = 'cd "$1" && for d in $(seq 40); do mkdir $d && (cd $d && seq 100 | xargs touch); done';
    await execute('bash', ['-c', script, 'bash', tree]);
    await host.registry.publishStack('debian', tree);
    const { stdout } = await run('dumpe2fs', ['-h', host.template('debian')]);
    expect(Number(/^Free inodes:\s+(\d+)$/m.exec(stdout)?.[1])).toBeGreaterThan(2000);
    expect(await faultsOf(host.template('debian'))).toBe('');
  });

  test('that is empty is a filesystem all the same', async () => {
    const host = await Host.in();
    await mkdir(join(host.root, 'tree'));
    await host.registry.publishStack('empty', join(host.root, 'tree'));
    expect(await faultsOf(host.template('empty'))).toBe('');
  });
});

describe('an image', () => {
  test.each([
    ['gzip', ['gzip', '-k'], 'gz', undefined],
    ['zstd', ['zstd', '-q'], 'zst', lacks('zstd')],
    ['xz', ['xz', '-k'], 'xz', lacks('xz')],
  ] as const)(
    'compressed by %s is published with its digest, and its zeros are holes',
    async (format, command, suffix, missing) => {
      if (missing !== undefined) return expect.fail(missing);
      const host = await Host.in();
      const source = join(host.root, 'image');
      await makeExt4Image(source, 64 * MiB);
      const sha256 = await sha256Of(source);
      await execute(command[0], [...command.slice(1), source]);
      const steps: string[] = [];
      const published = await host.registry.publishStack('debian', `${source}.${suffix}`, {
        expectedSha256: sha256.toUpperCase(),
        onProgress: ({ step, bytesDone, bytesTotal }) => steps.push(`${step} ${bytesDone <= bytesTotal}`),
      });
      expect(published).toMatchObject({ format, sha256, sizeBytes: 64 * MiB });
      expect(new Set(steps)).toEqual(new Set(['read true', 'hash true']));
      expect(await allocatedBytes(host.template('debian'))).toBeLessThanOrEqual(await allocatedBytes(source));
    },
  );

  test('compressed in several parts is decompressed to its end', async ({ skip }) => {
    const missing = lacks('zstd', 'xz');
    if (missing !== undefined) skip(missing);
    const host = await Host.in();
    const source = join(host.root, 'image');
    await makeExt4Image(source, 4 * MiB);
    const sha256 = await sha256Of(source);
    for (const program of ['gzip', 'zstd', 'xz']) {
      const parts =
        'for part in 1 2; do tail -c +$(((part - 1) * 1000000 + 1)) "$1" | head -c $((part * ' +
        `part * 1000000)) | ${program} -c; done > "$1.parts"`;
      await execute('bash', ['-c', parts, 'bash', source]);
      expect((await host.registry.publishStack(program, `${source}.parts`)).sha256).toBe(sha256);
    }
  });

  test('in qcow2, also a compressed one, is published raw', async ({ skip }) => {
    const missing = lacks('qemu-img', 'zstd');
    if (missing !== undefined) skip(missing);
    const host = await Host.in();
    const raw = join(host.root, 'raw');
    const source = join(host.root, 'nbd:image');
    await makeExt4Image(raw, 16 * MiB);
    await run('qemu-img', ['convert', '-O', 'qcow2', raw, `file:${source}`]);
    await run('zstd', ['-q', source]);
    const sha256 = await sha256Of(raw);
    expect(await host.registry.publishStack('debian', source)).toMatchObject({ format: 'qcow2', sha256 });
    expect(await host.registry.publishStack('packed', `${source}.zst`)).toMatchObject({
      format: 'zstd',
      sha256,
    });
  });

  test('whose journal was not replayed is published with it replayed, the same each time', async () => {
    const host = await Host.in();
    const source = join(host.root, 'image');
    await makeExt4Image(source, 64 * MiB);
    await leaveJournal(source);
    const expectedSha256 = await sha256Of(source);
    const { sha256 } = await host.registry.publishStack('debian', source, { expectedSha256 });
    expect(sha256).not.toBe(expectedSha256);
    expect(await faultsOf(host.template('debian'))).toBe('');
    expect(await readInside(host.template('debian'), '/written-late')).toBe('late\n');
    expect(await sha256Of(source)).toBe(expectedSha256);
    expect((await host.registry.publishStack('again', source)).sha256).toBe(sha256);
  });

  test('longer than its filesystem keeps its length', async () => {
    const host = await Host.in();
    const source = join(host.root, 'image');
    await makeExt4Image(source, 8 * MiB);
    await truncate(source, 8 * MiB + 12345);
    expect((await host.registry.publishStack('debian', source)).sizeBytes).toBe(8 * MiB + 12345);
    expect((await readFile(host.template('debian'))).length).toBe(8 * MiB + 12345);
  });
});

/** As after a power cut: the filesystem was never unmounted, and what it wrote last is only in its journal. */
async function leaveJournal(image: string): Promise<void> {
  const folder = newWorkspace().mount('journal', ['-o', 'loop', image]);
  await writeFile(join(folder, 'written-late'), 'late\n', { flush: true });
  const copy = `${image}.cut`;
  await execute('cp', ['--sparse=always', image, copy]);
  await execute('umount', [folder]);
  await execute('mv', [copy, image]);
  expect((await run('dumpe2fs', ['-h', image])).stdout).toContain('needs_recovery');
}

/** How many descriptors this process has of a file. */
function descriptorsOf(inode: number): number {
  return readdirSync('/proc/self/fd').filter((fd) => inodeOf(Number(fd)) === inode).length;
}

function inodeOf(fd: number): number | undefined {
  try {
    return fstatSync(fd).ino;
  } catch {
    return undefined; // the descriptor of the listing itself
  }
}
