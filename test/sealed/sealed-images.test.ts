// One immutable image of each template and size, that clones come from: made once, true, and made anew when somebody
// touched it.
import { execFileSync } from 'node:child_process';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { closeSync, openSync, type Stats, statSync, writeSync } from 'node:fs';
import {
  appendFile,
  chmod,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { exitOf, printed, runChild, startChild } from '../fixtures/child.js';
import { describeEachFilesystem, filesystemNamed } from '../fixtures/each-filesystem.js';
import { allocatedBytes, sha256, sha256Of, writeSparse } from '../fixtures/files.js';
import { Workspace } from '../fixtures/filesystems.js';
import { Host } from '../fixtures/host.js';
import { faultsOf, KiB, MiB, pattern } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { findTool, lacks } from '../fixtures/tools.js';
import { whileHashing } from '../fixtures/while-hashing.js';

const BYTES = pattern(4 * MiB);
const WRITABLE = { writable: true } as const;

function sealedFolder(host: Host): string {
  return join(host.clonesDir, '.microvm-rootfs/sealed');
}

async function sealed(host: Host): Promise<string[]> {
  return (await readdir(sealedFolder(host))).map((name) => join(sealedFolder(host), name));
}

/** A file of many extents on any filesystem and under any load: written and unwritten blocks in turn. */
async function writeScattered(path: string, blocks: number): Promise<void> {
  execFileSync('fallocate', ['-l', `${blocks * 4 * KiB}`, path]);
  const file = await open(path, 'r+');
  for (let i = 0; i < blocks; i += 2) await file.write(pattern(4 * KiB, i + 1), 0, 4 * KiB, i * 4 * KiB);
  await file.sync();
  await file.close();
}

/** Where the blocks of a file lie: equal for two files that share all of them. */
function layoutOf(path: string): string[] {
  const said = execFileSync('/usr/sbin/filefrag', ['-v', path], { encoding: 'utf8' });
  return said.split('\n').flatMap((line) => /^ *\d+: +[\d.]+ *\d+: +([\d.]+ *\d+):/.exec(line)?.[1] ?? []);
}

function extentsOf(path: string): number {
  return layoutOf(path).length;
}

/** Those of this process. */
async function openFiles(): Promise<Stats[]> {
  const paths = (await readdir('/proc/self/fd')).map((fd) => `/proc/self/fd/${fd}`);
  return paths.flatMap((path) => statSync(path, { throwIfNoEntry: false }) ?? []);
}

function isSame(a: Stats, b: Stats): boolean {
  return a.dev === b.dev && a.ino === b.ino;
}

/**
 * Which of today's records will have been read, other than those of grown images. Tells it by their times
 * of last access.
 */
async function recordsReadFrom(host: Host, skip: (why: string) => void): Promise<() => Promise<string[]>> {
  const long = new Date(1000);
  const set: string[] = [];
  for (const folder of await sealed(host)) {
    const path = join(folder, 'record.json');
    const { sizeBytes, template } = JSON.parse(await readFile(path, 'utf8'));
    if (template.sizeBytes !== sizeBytes) continue;
    await utimes(path, long, (await stat(path)).mtime);
    set.push(path);
  }
  const [first = ''] = set;
  const { mtime } = await stat(first);
  await readFile(first);
  if ((await stat(first)).atimeMs === long.getTime()) skip('reading changes no times here: noatime');
  await utimes(first, long, mtime);
  return async () => {
    const times = await Promise.all(set.map((path) => stat(path).catch(() => undefined)));
    return set.filter((_, i) => times[i] !== undefined && times[i].atimeMs !== long.getTime());
  };
}

/** By this process so far. */
async function bytesReadFromDisk(): Promise<number> {
  return Number(/^read_bytes: (\d+)$/m.exec(await readFile('/proc/self/io', 'latin1'))?.[1]);
}

describeEachFilesystem(
  (filesystem) => {
    test('made at the first clone, once for a hundred callers; read-only, and named by the digest of its bytes', async () => {
      const host = await Host.in(filesystem.path);
      await host.addTemplate('debian', BYTES);
      const ids = Array.from({ length: 100 }, (_, i) => `vm-${i}`);
      await Promise.all(ids.map((id) => host.registry.cloneForVm(id, 'debian', WRITABLE)));
      const [image, ...others] = await sealed(host);
      expect(others).toEqual([]);
      expect(image).toBe(join(sealedFolder(host), `${sha256(BYTES)}-${BYTES.length}`));
      expect(await sha256Of(join(image as string, 'rootfs.ext4'))).toBe(sha256(BYTES));
      expect((await stat(join(image as string, 'rootfs.ext4'))).mode & 0o777).toBe(0o444);
    });

    test('made once for processes that ask at once', async () => {
      const host = await Host.in(filesystem.path);
      await host.addTemplate('debian', BYTES);
      const { templateDir, clonesDir } = host;
      const children = [1, 2, 3].map(() =>
        startChild(
          `const registry = new lib.RootfsRegistry(args);
           await registry.stack('debian');
           console.log('ready');
           await new Promise((resolve) => process.stdin.once('data', resolve));
           await registry.cloneForVm('vm-' + process.pid, 'debian', { writable: true })
             .then(() => console.log('done'), console.log);
           process.exit();`,
          { templateDir, clonesDir },
        ),
      );
      await Promise.all(children.map((child) => printed(child, 'ready')));
      const ends = children.map(exitOf);
      for (const child of children) child.stdin?.write('go');
      for (const exit of await Promise.all(ends))
        expect(exit).toMatchObject({ stdout: 'done\n', stderr: '' });
      expect(await sealed(host)).toHaveLength(1);
      for (const { pid } of children)
        expect(await sha256Of(host.slot(`vm-${pid}`).image)).toBe(sha256(BYTES));
    });

    test('it is a reflink of the template and takes no space, in however many extents it lies', async () => {
      const host = await Host.in(filesystem.path);
      await host.addTemplate('whole', BYTES);
      await host.placeTemplate('scattered', (path) => writeScattered(path, 300));
      for (const stack of ['whole', 'scattered']) {
        const clone = await host.registry.cloneForVm(stack, stack, WRITABLE);
        expect(clone.strategy).toBe('reflink');
        // XFS leaves out what was reserved and never written.
        const pieces = new Set(layoutOf(host.template(stack)));
        expect(layoutOf(clone.path).filter((piece) => !pieces.has(piece))).toEqual([]);
        expect(await sha256Of(clone.path)).toBe(await sha256Of(host.template(stack)));
      }
      for (const { ownBytes, packed } of await host.registry.sealedImages())
        expect([ownBytes, packed]).toEqual([0, false]);
    });

    test('a template that changes while it is hashed is not sealed under a digest that its image lacks', async () => {
      const host = await Host.in(filesystem.path);
      const template = await host.addTemplate('debian', pattern(48 * MiB));
      whileHashing(() => {
        const fd = openSync(template, 'r+');
        writeSync(fd, 'x', 40 * MiB);
        closeSync(fd);
      });
      await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), 'TEMPLATE_CHANGED');
      expect(await sealed(host)).toEqual([]);
    });

    test('packed when that is asked for: few extents, the same bytes, and the plain image goes', async () => {
      const host = await Host.in(filesystem.path);
      const told: unknown[] = [];
      const listen = (event: unknown) => told.push(event);
      subscribe('microvm-rootfs:packing', listen);
      onTestFinished(() => void unsubscribe('microvm-rootfs:packing', listen));
      await host.placeTemplate('scattered', (path) => writeScattered(path, 300));
      await host.registry.prewarm('scattered', { count: 0 });
      await host.registry.prewarm('scattered', { count: 0, pack: true });
      const digest = await sha256Of(host.template('scattered'));
      for (const registry of [host.registry, host.anotherRegistry()]) {
        const clone = await registry.cloneForVm(`vm-${Math.random()}`, 'scattered', WRITABLE);
        expect(extentsOf(clone.path)).toBeLessThanOrEqual(4);
        expect(await sha256Of(clone.path)).toBe(digest);
      }
      expect((await sealed(host)).map((path) => path.endsWith('-packed'))).toEqual([true]);
      expect(told).toMatchObject([{ outcome: 'packed' }]);
      expect((await host.registry.verify()).differences).toEqual([]);
      await rm(join(host.templateDir, 'scattered'), { recursive: true });
      expect((await host.anotherRegistry().recover()).sealedRemoved).toBe(1);
    });

    test('packed behind the clones when their extents have cost more time than packing takes', async () => {
      const host = await Host.in(filesystem.path);
      await host.placeTemplate('scattered', (path) => writeScattered(path, 300));
      await host.registry.cloneForVm('vm-0', 'scattered', WRITABLE);
      const [{ packAfterClones = 0 } = {}] = await host.registry.sealedImages();
      expect(packAfterClones).toBeGreaterThan(1);
      expect(packAfterClones).toBeLessThan(100);
      for (let i = 1; i < packAfterClones; i++)
        await host.registry.cloneForVm(`vm-${i}`, 'scattered', WRITABLE);
      await host.registry.drain();
      expect((await host.registry.sealedImages()).map(({ packed }) => packed)).toEqual([true]);
      const clone = await host.registry.cloneForVm('last', 'scattered', WRITABLE);
      expect(extentsOf(clone.path)).toBeLessThanOrEqual(4);
      expect(await sha256Of(clone.path)).toBe(await sha256Of(host.template('scattered')));
    });

    test('of many sizes the least used go, and their descriptors', async () => {
      const host = await Host.in(filesystem.path, { sealedImages: 3 });
      await host.addExt4Template('debian', 16 * MiB);
      for (let size = 17; size < 25; size++) {
        await host.registry.cloneForVmWithSize('vm-1', 'debian', size * MiB, WRITABLE);
        await host.registry.release('vm-1');
      }
      await host.registry.drain();
      const sizes = (await host.registry.sealedImages()).map(({ sizeBytes }) => sizeBytes / MiB);
      expect(sizes.sort((a, b) => a - b)).toEqual([16, 22, 23, 24]);
    });

    test('packing puts no more zeros than 8 MiB and a quarter of the data in the place of holes', async () => {
      const host = await Host.in(filesystem.path);
      const gaps = Array.from({ length: 40 }, (_, i) => [i * MiB, pattern(16 * KiB)]);
      await host.placeTemplate('gaps', (path) => writeSparse(path, 80 * MiB, Object.fromEntries(gaps)));
      await host.registry.prewarm('gaps', { count: 0, pack: true });
      const clone = await host.registry.cloneForVm('vm-1', 'gaps', WRITABLE);
      expect(await sha256Of(clone.path)).toBe(await sha256Of(host.template('gaps')));
      const data = await allocatedBytes(host.template('gaps'));
      // File systems round to blocks of 4 KiB.
      expect(await allocatedBytes(clone.path)).toBeLessThanOrEqual(data * 1.25 + 8 * MiB + 64 * KiB);
    });

    test('its record says what it is of, and how it was sealed', async () => {
      const host = await Host.in(filesystem.path);
      await host.addTemplate('debian', BYTES);
      await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
      const [folder = ''] = await sealed(host);
      const { ino, mtimeNs, ctimeNs } = await stat(join(folder, 'rootfs.ext4'), { bigint: true });
      expect(JSON.parse(await readFile(join(folder, 'record.json'), 'utf8'))).toMatchObject({
        version: 1,
        templatePath: host.template('debian'),
        sha256: sha256(BYTES),
        sizeBytes: BYTES.length,
        image: { inode: `${ino}`, sizeBytes: BYTES.length, mtimeNs: `${mtimeNs}`, ctimeNs: `${ctimeNs}` },
        extents: extentsOf(join(folder, 'rootfs.ext4')),
      });
    });

    test('a grow that fails seals nothing at that size, and the next one works', async () => {
      const host = await Host.in(filesystem.path);
      await host.addExt4Template('debian', 16 * MiB);
      const broken = host.anotherRegistry({ resize2fsBin: '/bin/false' });
      await rejection(broken.cloneForVmWithSize('vm-1', 'debian', 64 * MiB, WRITABLE), 'RESIZE_FAILED');
      expect(await sealed(host)).toHaveLength(1);
      expect(await host.leftovers()).toEqual([]);
      await host.registry.cloneForVmWithSize('vm-1', 'debian', 64 * MiB, WRITABLE);
      expect(await sealed(host)).toHaveLength(2);
    });

    test('grown once for all VMs, and clean', async () => {
      const host = await Host.in(filesystem.path);
      await host.addExt4Template('debian', 16 * MiB);
      const log = join(host.root, 'resize2fs.log');
      const wrapper = join(host.root, 'resize2fs');
      await writeFile(wrapper, `#!/bin/sh\necho run >> ${log}\nexec ${findTool('resize2fs')} "$@"\n`);
      await chmod(wrapper, 0o755);
      const registry = host.anotherRegistry({ resize2fsBin: wrapper });
      const clones = await Promise.all(
        Array.from({ length: 10 }, (_, i) =>
          registry.cloneForVmWithSize(`vm-${i}`, 'debian', 64 * MiB, WRITABLE),
        ),
      );
      expect((await readFile(log, 'utf8')).split('\n')).toHaveLength(2);
      for (const { path } of clones) expect(await faultsOf(path)).toBe('');
      expect(await readFile(host.slot('vm-3').sizeStamp, 'utf8')).toBe(`${64 * MiB}`);
    });

    const DAMAGE: [string, (folder: string) => Promise<void>][] = [
      ['a byte more', (folder) => appendFile(join(folder, 'rootfs.ext4'), 'x')],
      ['cut short', (folder) => truncate(join(folder, 'rootfs.ext4'), 1000)],
      ['removed', (folder) => rm(folder, { recursive: true })],
      ['without its image', (folder) => rm(join(folder, 'rootfs.ext4'))],
      [
        'another file under its name',
        async (folder) => {
          await writeFile(join(folder, 'new'), pattern(BYTES.length, 9));
          await rename(join(folder, 'new'), join(folder, 'rootfs.ext4'));
        },
      ],
      ['with garbage for a record', (folder) => writeFile(join(folder, 'record.json'), '{"version":')],
    ];
    test.each(DAMAGE)(
      'behind our back %s: the next clones are right, in this process and in another',
      async (_, harm) => {
        const host = await Host.in(filesystem.path);
        await host.addTemplate('debian', BYTES);
        await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
        await harm((await sealed(host))[0] as string);
        for (const [id, registry] of [
          ['vm-2', host.registry],
          ['vm-3', host.anotherRegistry()],
          ['vm-4', host.registry],
        ] as const) {
          const clone = await registry.cloneForVm(id, 'debian', WRITABLE);
          expect(clone.sourceSha256).toBe(sha256(BYTES));
          expect(await sha256Of(clone.path)).toBe(sha256(BYTES));
        }
      },
    );

    test.each(['{"version":1,"image":{}}', '{"version":1,"image":null}', 'null'])(
      'with %s for a record: removed by recover()',
      async (garbage) => {
        const host = await Host.in(filesystem.path);
        await host.addTemplate('debian', BYTES);
        await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
        await writeFile(join((await sealed(host))[0] as string, 'record.json'), garbage);
        expect((await host.anotherRegistry().recover()).sealedRemoved).toBe(1);
      },
    );

    test('of a template that is gone: removed by recover(), unless all templates are away', async () => {
      const host = await Host.in(filesystem.path);
      await host.addTemplate('debian', BYTES);
      const clone = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
      await rename(host.templateDir, `${host.templateDir}.away`);
      expect((await host.anotherRegistry().recover()).sealedRemoved).toBe(0);
      // An empty mount point is no folder of templates without templates.
      await mkdir(host.templateDir);
      await rejection(host.registry.cloneForVm('vm-2', 'debian', WRITABLE), 'STACK_NOT_FOUND');
      await host.registry.drain();
      expect((await host.anotherRegistry().recover()).sealedRemoved).toBe(0);
      expect(await sealed(host)).toHaveLength(1);
      await host.addTemplate('alpine', 'another');
      expect((await host.anotherRegistry().recover()).sealedRemoved).toBe(1);
      expect(await sealed(host)).toEqual([]);
      expect(await sha256Of(clone.path)).toBe(sha256(BYTES));
    });

    test('a template that is replaced, or a new size of one, has no other records read', async ({ skip }) => {
      const host = await Host.in(filesystem.path);
      for (let i = 0; i < 12; i++) {
        if (i < 2) await host.addExt4Template(`stack-${i}`, (8 + i) * MiB);
        else await host.addTemplate(`stack-${i}`, pattern(64 * KiB, i + 1));
        await host.registry.cloneForVm(`vm-${i}`, `stack-${i}`, WRITABLE);
      }
      // The first new size has all looked at.
      await host.registry.cloneForVmWithSize('grown-0', 'stack-0', 32 * MiB, WRITABLE);
      await host.registry.drain();
      const read = await recordsReadFrom(host, skip);
      await host.registry.cloneForVmWithSize('grown-1', 'stack-0', 48 * MiB, WRITABLE);
      await host.addTemplate('stack-5', BYTES);
      await host.registry.stacks();
      await host.registry.drain();
      expect(await read()).toEqual([]);
      expect(await sealed(host)).toHaveLength(13);
    });

    test('of a template that was replaced: removed when that is seen, and by recover() at the latest', async () => {
      const host = await Host.in(filesystem.path);
      for (const stack of ['one', 'two']) {
        await host.addTemplate(stack, `${stack}, before`);
        await host.registry.cloneForVm(stack, stack, WRITABLE);
      }
      await host.addTemplate('one', 'one, after');
      await host.registry.cloneForVm('vm-1', 'one', WRITABLE);
      await host.registry.drain();
      const names = ['one, after', 'two, before'].map((text) => `${sha256(text)}-${text.length}`);
      expect((await readdir(sealedFolder(host))).sort()).toEqual(names.sort());
      // A file where a stack's folder was is no stack.
      await rm(join(host.templateDir, 'two'), { recursive: true });
      await writeFile(join(host.templateDir, 'two'), '');
      expect((await host.registry.recover()).sealedRemoved).toBe(1);
    });

    test("sealing: 'off' makes none", async () => {
      const host = await Host.in(filesystem.path, { sealing: 'off' });
      await host.addTemplate('debian', BYTES);
      expect((await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).strategy).toBe('reflink');
      expect(await sealed(host)).toEqual([]);
    });

    test('a template on another file system is copied once, into it', async () => {
      const elsewhere = await Host.in(filesystemNamed('ext4').path);
      const host = await Host.in(filesystem.path, { templateDir: elsewhere.templateDir });
      await elsewhere.addTemplate('debian', BYTES);
      const clones = [];
      for (const id of ['vm-1', 'vm-2']) clones.push(await host.registry.cloneForVm(id, 'debian', WRITABLE));
      expect(clones.map(({ strategy }) => strategy)).toEqual(['reflink', 'reflink']);
      expect(await sha256Of((clones[1] as { path: string }).path)).toBe(sha256(BYTES));
    });

    test('another disk is mounted over the folder of clones: clones are reflinks there too', async ({
      skip,
    }) => {
      const other = filesystemNamed(filesystem.name === 'btrfs' ? 'XFS' : 'btrfs');
      if (other.missing !== undefined) skip(other.missing);
      const host = await Host.in(filesystem.path);
      await host.addExt4Template('debian', 16 * MiB);
      await host.registry.cloneForVmWithSize('vm-0', 'debian', 32 * MiB, WRITABLE);
      const held = (await sealed(host)).map((path) => statSync(join(path, 'rootfs.ext4')));
      expect(held).toHaveLength(2);
      execFileSync('mount', ['--bind', (await Host.in(other.path)).root, host.clonesDir]);
      try {
        await host.registry.prewarm('debian');
        const clones = [
          await host.registry.cloneForVm('vm-1', 'debian', WRITABLE),
          await host.registry.cloneForVmWithSize('vm-2', 'debian', 32 * MiB, WRITABLE),
        ];
        for (const clone of clones) expect(clone).toMatchObject({ strategy: 'reflink', attempts: [] });
        expect(await host.registry.sealedImages()).toHaveLength(2);
        expect((await openFiles()).filter((file) => held.some((image) => isSame(file, image)))).toEqual([]);
      } finally {
        await host.registry.close();
        execFileSync('umount', [host.clonesDir]);
      }
    });
  },
  ({ reflinks }) => reflinks,
);

describeEachFilesystem(
  (filesystem) => {
    test('a template that is in memory is hashed without reading the disk', async () => {
      const host = await Host.in(filesystem.path);
      await host.placeTemplate('debian', (path) => writeFile(path, BYTES, { flush: true }));
      const before = await bytesReadFromDisk();
      await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
      expect((await bytesReadFromDisk()) - before).toBeLessThan(BYTES.length / 2);
    });
  },
  ({ name }) => ['XFS', 'btrfs'].includes(name),
);

describeEachFilesystem(
  (filesystem) => {
    test('without reflink none is made', async () => {
      const host = await Host.in(filesystem.path);
      await host.addTemplate('debian', BYTES);
      await host.registry.prewarm('debian', { count: 0 });
      await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
      expect(await sealed(host)).toEqual([]);
    });
  },
  ({ reflinks }) => !reflinks,
);

test('a grown image that cannot be reflinked all the same is copied whole', async ({ skip }) => {
  const reason = filesystemNamed('btrfs').missing ?? lacks('strace');
  if (reason !== undefined) skip(reason);
  const host = await Host.in(filesystemNamed('btrfs').path);
  await host.addExt4Template('debian', 16 * MiB);
  await host.registry.prewarm('debian', { count: 0, sizeBytes: 32 * MiB });
  // On its one pool thread, after two for the template's file system, the try whether the folder can reflink, and two
  // more, comes the clone's.
  const inject = ['strace', '-f', '-qqq', '-o', '/dev/null', '-e', 'inject=ioctl:error=EOPNOTSUPP:when=6+'];
  const { stdout, stderr } = await runChild(
    `const registry = new lib.RootfsRegistry(args);
     const { strategy, attempts } = await registry.cloneForVmWithSize('vm-1', 'debian', 2 ** 25, { writable: true });
     await registry.close();
     require('fs').writeSync(1, JSON.stringify([strategy, attempts]));`,
    { templateDir: host.templateDir, clonesDir: host.clonesDir },
    { env: { UV_THREADPOOL_SIZE: '1' }, under: inject },
  );
  expect([stdout, stderr]).toEqual(['["copy",[{"strategy":"reflink","code":"ENOTSUP"}]]', '']);
  expect((await stat(host.slot('vm-1').image)).size).toBe(32 * MiB);
  expect(await faultsOf(host.slot('vm-1').image)).toBe('');
});

test('on a full disk a template is sealed and cloned all the same', async ({ skip }) => {
  const xfs = filesystemNamed('XFS');
  if (xfs.missing !== undefined) skip(xfs.missing);
  const root = await Host.in();
  const workspace = new Workspace(root.root);
  const disk = workspace.disk(
    'small',
    [...(['mkfs.xfs', '-q', '-f', '-m', 'reflink=1'] as const)],
    300 * MiB,
  );
  try {
    const host = await Host.in(disk);
    // More than what will be left.
    await host.placeTemplate('debian', async (path) => {
      await writeScattered(path, 20);
      await appendFile(path, pattern(40 * MiB));
    });
    await host.addTemplate('small', 'opens the folder while there is space');
    await host.registry.cloneForVm('vm-0', 'small', WRITABLE);
    const filler = join(disk, 'filler');
    execFileSync('sh', ['-c', `dd if=/dev/zero of=${filler} bs=64k status=none 2>/dev/null; true`]);
    await truncate(filler, (await stat(filler)).size - 8 * MiB);
    execFileSync('sync', ['-f', disk]);
    const clone = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    expect(clone).toMatchObject({ strategy: 'reflink', attempts: [] });
    expect(await sha256Of(clone.path)).toBe(await sha256Of(host.template('debian')));
    await host.registry.close();
  } finally {
    workspace.dispose();
  }
});

test('a sealed image that somebody wrote to is not packed, and so not made valid again', async ({ skip }) => {
  const xfs = filesystemNamed('XFS');
  if (xfs.missing !== undefined) skip(xfs.missing);
  const host = await Host.in(xfs.path);
  await host.addExt4Template('debian', 16 * MiB);
  const sizeBytes = 32 * MiB;
  await host.registry.cloneForVmWithSize('vm-1', 'debian', sizeBytes);
  const grown = (await host.registry.sealedImages()).find((image) => image.grown);
  const path = grown?.path as string;
  await chmod(path, 0o600);
  const file = await open(path, 'r+');
  await file.write('written by somebody', 9 * MiB);
  await file.close();
  await chmod(path, 0o444);
  await host.registry.prewarm('debian', { sizeBytes, pack: true });
  const clone = await host.registry.cloneForVmWithSize('vm-2', 'debian', sizeBytes);
  expect((await readFile(clone.path)).includes('written by somebody')).toBe(false);
});
