// What is not published: the catalog stays as it was, and nothing is left in staging.
import { execFile, execFileSync } from 'node:child_process';
import {
  appendFile,
  copyFile,
  mkdir,
  mkdtemp,
  open,
  readFile,
  statfs,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, inject, onTestFinished, test } from 'vitest';
import { type PublishOptions, RootfsRegistry } from '../../src/index.js';
import { cli } from '../cli/run-cli.js';
import { runChild } from '../fixtures/child.js';
import { exists, sha256Of, snapshot } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { addUnknownFeature, faultsOf, MiB, makeExt4Image, pattern, run } from '../fixtures/images.js';
import { mountBind } from '../fixtures/mounts.js';
import { rejection } from '../fixtures/rejection.js';
import { makeTar } from '../fixtures/tars.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';
import { newWorkspace } from '../fixtures/workspace.js';

const execute = promisify(execFile);

interface Rig {
  readonly host: Host;
  readonly source: string;
  /** The call must fail, and change nothing. */
  refused(code: string | readonly string[], options?: PublishOptions, source?: string): Promise<string>;
}

async function rig(): Promise<Rig> {
  const host = await Host.in();
  const source = join(host.root, 'image');
  await makeExt4Image(source, 16 * MiB);
  await host.registry.publishStack('old', source);
  return {
    host,
    source,
    async refused(code, options = {}, from = source) {
      const catalog = async () =>
        Object.entries(await snapshot(host.templateDir)).filter(
          ([path]) => !path.startsWith('.microvm-rootfs'),
        );
      const before = await catalog();
      const { message } = await rejection(
        host.registry.publishStack('old', from, { replace: true, ...options }),
        code,
      );
      await rejection(host.registry.publishStack('new', from, options), code);
      expect(await catalog()).toEqual(before);
      expect(await host.stagedInCatalog()).toEqual([]);
      return message;
    },
  };
}

describe('refused', () => {
  test('a digest other than the expected one', async () => {
    const { source, refused } = await rig();
    const message = await refused('DIGEST_MISMATCH', { expectedSha256: '0'.repeat(64) });
    expect(message).toContain(await sha256Of(source));
  });

  test.each([
    ['nothing', Buffer.alloc(0)],
    ['garbage', pattern(MiB)],
    ['zeros', Buffer.alloc(MiB)],
  ])('%s', async (_, contents) => {
    const { source, refused } = await rig();
    await writeFile(source, contents);
    expect(await refused('IMAGE_INVALID')).toContain(source);
  });

  test('a filesystem that is longer than its file', async () => {
    const { source, refused } = await rig();
    await truncate(source, 12 * MiB);
    await refused('TEMPLATE_CORRUPT');
  });

  test('a VHD of fixed size, whose footer follows the file system', async () => {
    const { source, refused } = await rig();
    await appendFile(source, Buffer.from('conectix'.padEnd(512, '\0')));
    expect(await refused('IMAGE_INVALID')).toMatch(/VHD disk image: .*qemu-img convert -f vpc/);
  });

  test('what e2image saves of a file system, which begins like an image that was cut off', async () => {
    const { source, refused } = await rig();
    const saved = `${source}.e2i`;
    await execute('/sbin/e2image', [source, saved]);
    expect(await refused('IMAGE_INVALID', {}, saved)).toMatch(/as e2image saves it: publish the image/);
  });

  test('the journal of a file system on another device', async () => {
    const { source, refused } = await rig();
    await run('mke2fs', ['-q', '-F', '-O', 'journal_dev', source]);
    expect(await refused('IMAGE_INVALID')).toContain('publish that file system');
  });

  test('multiple mount protection, which makes programs sleep, until it is removed as the message says', async () => {
    const { host, source, refused } = await rig();
    await run('tune2fs', ['-O', 'mmp', '-E', 'mmp_update_interval=300', source]);
    expect(await refused('IMAGE_INVALID')).toContain('tune2fs -f -O ^mmp');
    await run('tune2fs', ['-f', '-O', '^mmp', source]);
    await host.registry.publishStack('mended', source);
  });

  test('a feature that e2fsck does not know, which e2fsck -fy would not mend', async () => {
    const { source, refused } = await rig();
    await addUnknownFeature(source);
    const message = await refused('E2FSCK_FAILED');
    expect(message).toMatch(/a newer e2fsprogs.*mke2fs -O \^/);
    expect(message).not.toContain('-fy');
  });

  test.each([
    ['the block bitmap', async (image: string) => flip(image, await blockOf(image, 'Block bitmap at'))],
    [
      'the inode table',
      async (image: string) => flip(image, await blockOf(image, 'Inode table at'), 256 + 40),
    ],
    [
      'a folder',
      async (image: string) =>
        flip(image, Number((await run('debugfs', ['-R', 'blocks /etc', image])).stdout) * 1024, 3),
    ],
    [
      'a count of links',
      async (image: string) =>
        void (await run('debugfs', ['-w', '-R', 'sif /etc/hostname links_count 7', image])),
    ],
  ])('damage in %s', async (_, damage) => {
    const { source, refused } = await rig();
    await damage(source);
    expect(await faultsOf(source)).not.toBe('');
    const message = await refused('E2FSCK_FAILED');
    expect(message).toContain(source);
    expect(message).not.toContain('staging');
  });

  test('an image whose journal is on another device', async () => {
    const { source, refused } = await rig();
    // The number of the inode that has it.
    const image = await open(source, 'r+');
    await image.write(Buffer.alloc(4), 0, 4, 1024 + 0xe0);
    await image.close();
    expect(await refused('IMAGE_INVALID')).toContain('its journal on another device');
  });

  test.each([
    ['gzip', 'gzip', 'gz'],
    ['zstd', 'zstd', 'zst'],
    ['xz', 'xz', 'xz'],
  ] as const)('%s that is cut off, or damaged', async (_, program, suffix) => {
    const missing = program === 'gzip' ? undefined : lacks(program);
    if (missing !== undefined) return expect.fail(missing);
    const { source, refused } = await rig();
    await execute(program, ['-k', source]);
    const path = `${source}.${suffix}`;
    const whole = await readFile(path);
    await truncate(path, Math.floor(whole.length / 2));
    expect(await refused('IMAGE_INVALID', {}, path)).toContain(path);
    whole.fill(0x55, 1000, 2000);
    await writeFile(path, whole);
    await refused('IMAGE_INVALID', {}, path);
  });

  test('what is compressed twice', async () => {
    const { source, refused } = await rig();
    await execute('gzip', [source]);
    await execute('bash', ['-c', 'gzip -c "$1" > "$1.gz"', 'bash', `${source}.gz`]);
    await refused('IMAGE_INVALID', {}, `${source}.gz.gz`);
  });

  test('a tar that is cut off, and one that leads out of its folder', async () => {
    const { host, refused } = await rig();
    const path = join(host.root, 'x.tar');
    await mkdir(join(host.root, 'tree'));
    await writeFile(join(host.root, 'tree/file'), pattern(100_000));
    await run('tar', ['-C', join(host.root, 'tree'), '-cf', path, 'file']);
    await truncate(path, 50_000);
    await refused('IMAGE_INVALID', {}, path);
    await run('tar', [
      '-P',
      '-C',
      join(host.root, 'tree'),
      '-cf',
      path,
      '--transform',
      's,^,../../../,',
      'file',
    ]);
    await refused('IMAGE_INVALID', {}, path);
    expect(await exists(join(host.templateDir, 'file'))).toBe(false);
  });

  test('a qcow2 that needs another file, or is damaged', async ({ skip }) => {
    const missing = lacks('qemu-img');
    if (missing !== undefined) skip(missing);
    const { host, source, refused } = await rig();
    const at = (name: string) => join(host.root, name);
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', source, '-F', 'raw', at('backed')]);
    expect(await refused('IMAGE_INVALID', {}, at('backed'))).toContain('backing file');
    const split = [
      'convert',
      '-O',
      'qcow2',
      '-o',
      `data_file=${at('data')},data_file_raw=on`,
      source,
      at('split'),
    ];
    await run('qemu-img', split);
    expect(await refused('IMAGE_INVALID', {}, at('split'))).toContain('another file');
    await run('qemu-img', ['convert', '-O', 'qcow2', source, at('cut')]);
    await truncate(at('cut'), 70_000);
    await refused(['IMAGE_INVALID', 'TEMPLATE_CORRUPT', 'E2FSCK_FAILED'], {}, at('cut'));
    await truncate(at('cut'), 50);
    await refused('IMAGE_INVALID', {}, at('cut'));
  });

  test('a tree that is larger than the size that was given', async () => {
    const { host, refused } = await rig();
    await mkdir(join(host.root, 'tree'));
    await writeFile(join(host.root, 'tree/file'), pattern(20 * MiB));
    const message = await refused('MKE2FS_FAILED', { sizeBytes: 16 * MiB }, join(host.root, 'tree'));
    expect(message).toContain('sizeBytes');
  });

  test.each([4, 64, 512])('a size of %i KiB, which holds no file system', async (size) => {
    const { host, refused } = await rig();
    const tree = join(host.root, 'tree');
    await mkdir(tree);
    const message = await refused('MKE2FS_FAILED', { sizeBytes: size * 1024 }, tree);
    expect(message).toMatch(`${tree} does not fit into the ${size * 1024} bytes that sizeBytes asks for`);
    expect(message).toMatch(/or give \d+$/);
  });

  test.each([
    ['mke2fs', 'kill -KILL $$', 'was killed by SIGKILL on TREE; dmesg tells'],
    [
      'mke2fs',
      'echo "Warning: the fs_type small is not defined" >&2; exit 3',
      'exited with status 3 on TREE',
    ],
    ['mke2fs', 'for f; do :; done; echo "$0: $f is odd" >&2; exit 3', 'exited with status 3 on TREE: '],
    ['e2fsck', 'kill -KILL $$', 'was killed by SIGKILL on TREE; dmesg tells'],
  ])('a tree for which %s fails is named: %s', async (name, script, says) => {
    const { host } = await rig();
    const tree = join(host.root, 'tree');
    await mkdir(tree);
    const program = join(host.root, name);
    await writeFile(program, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    const registry = new RootfsRegistry({ ...host.registry.config, [`${name}Bin`]: program });
    const { message, path } = await rejection(
      registry.publishStack('new', tree),
      `${name.toUpperCase()}_FAILED`,
    );
    expect(message).toContain(says.replace('TREE', tree));
    expect(message).not.toMatch(/staging|fs_type|: *$/);
    expect(path).toBe(tree);
  });

  test.each([8, 12])('a tree with more inodes than the %i MiB that were given hold', async (size) => {
    const { host, refused } = await rig();
    const tar = join(host.root, 'tar');
    const links = Array.from({ length: 40_000 }, (_, i) => ({
      path: `${i % 100}/${i}`,
      type: '2',
      target: 'x',
    }));
    await writeFile(tar, makeTar(links));
    const message = await refused('MKE2FS_FAILED', { sizeBytes: size * MiB }, tar);
    expect(message).toMatch(/does not fit into the \d+ bytes that sizeBytes asks for: .* 40\d\d\d inodes/);
  });

  test.each([
    ['docker-archive:saved.tar', 'REFERENCE_INVALID', 'skopeo copy docker-archive:saved.tar oci:DIR'],
    ['oci-archive:/srv/saved.tar', 'REFERENCE_INVALID', 'skopeo copy oci-archive:/srv/saved.tar oci:DIR'],
    ['dir:/srv/image', 'REFERENCE_INVALID', 'skopeo copy dir:/srv/image oci:DIR'],
    ['docker-daemon:debian:12', 'REFERENCE_INVALID', 'publish oci:DIR'],
    ['containers-storage:debian:12', 'REFERENCE_INVALID', 'publish oci:DIR'],
    ['debian:12', 'ENOENT', 'publish docker://debian:12'],
    ['docker:debian:12', 'ENOENT', 'publish docker://debian:12'],
    ['localhost:5000/team/web:1.2-x', 'ENOENT', 'publish docker://localhost:5000/team/web:1.2-x'],
    ['https://example.com/debian.img', 'REFERENCE_INVALID', 'curl -fL URL'],
    ['file:///srv/debian.img', 'REFERENCE_INVALID', 'Publish /srv/debian.img'],
    ['oci:/srv/none', 'ENOENT', 'is not an OCI layout'],
  ])('%s, which is no path', async (source, code, advice) => {
    const { host, refused } = await rig();
    expect(await refused(code, {}, source)).toContain(advice);
    expect((await cli(host, ['publish', 'new', source])).stderr).toContain(advice);
  });

  test('a path that is not there gets no advice for container images, and a file of such a name is read', async () => {
    const { host, source, refused } = await rig();
    for (const path of ['/srv/none/debian:12', './debian:12', 'none/image.tar'])
      expect(await refused('ENOENT', {}, path)).not.toContain('docker://');
    const { stdout, stderr } = await runChild(
      `process.chdir(args.root);
       const registry = new lib.RootfsRegistry(args.config);
       for (const source of args.sources) await registry.publishStack('new', source, { replace: true });
       console.log((await registry.stack('new')).name);
       await registry.close();`,
      { config: host.registry.config, root: host.root, sources: await named(host, source) },
    );
    expect([stdout, stderr]).toEqual(['new\n', '']);
  });

  test('a source that is not there, or is neither file nor folder', async () => {
    const { host, refused } = await rig();
    await refused('ENOENT', {}, join(host.root, 'nothing'));
    await refused('INVALID_ARGUMENT', {}, '/dev/null');
  });

  test('a pipe or a device by its name, but not as standard input', async ({ skip }) => {
    const { host, source, refused } = await rig();
    const fifo = join(host.root, 'fifo');
    await execute('mkfifo', [fifo]);
    expect(await refused('INVALID_ARGUMENT', {}, fifo)).toContain(`publish NAME - < ${fifo}`);
    const shell = async (words: string, name: string, ...args: string[]) =>
      cli(host, ['publish', name, ...args], { under: ['bash', '-c', `"$@" ${words}`, 'bash'] });
    const { stderr } = await shell(`<(cat ${source})`, 'own');
    expect(stderr).toMatch(/is a pipe, .*COMMAND \| microvm-rootfs publish NAME -\)/);
    expect((await shell('/dev/stdin', 'own')).stderr).toContain('COMMAND |');
    const missing = lacksRoot();
    if (missing !== undefined) skip(missing);
    const device = (await execute('losetup', ['--find', '--show', '--read-only', source])).stdout.trim();
    onTestFinished(() => void execFileSync('losetup', ['--detach', device]));
    expect(await refused('INVALID_ARGUMENT', {}, device)).toContain(`publish NAME - < ${device}`);
    expect(await shell(`< ${device}`, 'device', '-')).toMatchObject({ stderr: '' });
    expect(await sha256Of(host.template('device'))).toBe(await sha256Of(source));
  });

  test('a source that somebody has open for writing', async () => {
    const { source, refused } = await rig();
    const writer = await open(source, 'r+');
    try {
      await refused('SOURCE_CHANGED');
    } finally {
      await writer.close();
    }
  });

  test('a file that is written to, or replaced, while it is read', async ({ skip }) => {
    const missing = lacks('xz');
    if (missing !== undefined) skip(missing);
    const { host, source } = await rig();
    await execute('xz', ['-k', source]);
    const path = `${source}.xz`;
    for (const change of [`touch -d @1234567890 ${path}`, `cp ${path} ${path}.new; mv ${path}.new ${path}`]) {
      const bin = join(host.root, 'bin');
      await mkdir(bin, { recursive: true });
      await writeFile(join(bin, 'xz'), `#!/bin/sh\n${change}\nexec /usr/bin/xz "$@"\n`, { mode: 0o755 });
      const { stdout } = await runChild(
        `const registry = new lib.RootfsRegistry(args.config);
         await registry.publishStack('new', args.path).catch(({ code }) => console.log(code));
         await registry.close();`,
        { config: host.registry.config, path },
        { env: { PATH: `${bin}:${process.env.PATH}` } },
      );
      expect(stdout).toBe('SOURCE_CHANGED\n');
    }
    expect(await host.registry.stack('new')).toBeUndefined();
  });

  test('a folder that changes while it is read', async () => {
    const { host } = await rig();
    const tree = join(host.root, 'tree');
    await mkdir(tree);
    await writeFile(join(tree, 'file'), 'before');
    const mke2fs = join(host.root, 'mke2fs');
    await writeFile(mke2fs, `#!/bin/sh\n/usr/sbin/mke2fs "$@" && echo after >> ${tree}/file\n`, {
      mode: 0o755,
    });
    await rejection(host.anotherRegistry({ mke2fsBin: mke2fs }).publishStack('tree', tree), 'SOURCE_CHANGED');
    expect(await host.registry.stack('tree')).toBeUndefined();
  });

  test('the folder that holds the catalog itself', async () => {
    const { host } = await rig();
    await rejection(host.registry.publishStack('new', host.root), 'INVALID_ARGUMENT');
  });

  test('a bind mount of the folder that holds the catalog', async ({ skip }) => {
    const reason = lacksRoot();
    if (reason !== undefined) skip(reason);
    const { host } = await rig();
    const place = await mkdtemp(join(inject('scratch'), 'place-'));
    mountBind(host.root, place);
    await rejection(host.registry.publishStack('new', place), 'INVALID_ARGUMENT');
  });

  test('options of a wrong type, and a size for an image', async () => {
    const { host, source, refused } = await rig();
    await refused('INVALID_ARGUMENT', { sizeBytes: 32 * MiB });
    await refused('INVALID_ARGUMENT', { sizeBytes: 1000 }, host.root);
    await refused('INVALID_ARGUMENT', { format: 'folder' });
    await refused('INVALID_ARGUMENT', { format: 'raw' }, join(host.root));
    await refused('INVALID_ARGUMENT', { format: 'iso' as 'raw' });
    await refused('INVALID_ARGUMENT', { expectedSha256: 'abc' });
    await refused('INVALID_ARGUMENT', { overwrite: true } as PublishOptions);
    await refused('INVALID_ARGUMENT', {}, '');
    await rejection(host.registry.publishStack('../x', source), 'INVALID_STACK_NAME');
  });

  test("a stack's name that a file or a symbolic link has", async () => {
    const { host, source } = await rig();
    await writeFile(join(host.templateDir, 'file'), '');
    await symlink(host.root, join(host.templateDir, 'link'));
    for (const name of ['file', 'link']) {
      await rejection(host.registry.publishStack(name, source, { replace: true }), [
        'TEMPLATE_INVALID',
        'ENOTDIR',
      ]);
    }
  });
});

describe('a program that is missing', () => {
  test.each([
    ['mke2fs', 'MKE2FS_NOT_FOUND', { mke2fsBin: '/nonexistent/mke2fs' }],
    ['e2fsck', 'E2FSCK_NOT_FOUND', { e2fsckBin: '/nonexistent/e2fsck' }],
  ])('%s is named with its package', async (_, code, config) => {
    const host = await Host.in();
    await mkdir(join(host.root, 'tree'));
    const error = await rejection(
      host.anotherRegistry(config).publishStack('new', join(host.root, 'tree')),
      code,
    );
    expect(error.message).toContain('e2fsprogs');
    expect(await host.stagedInCatalog()).toEqual([]);
  });

  test.each([
    ['xz', 'xz-utils', Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00])],
    [
      'qemu-img',
      'qemu-utils',
      Buffer.concat([Buffer.from('QFI\xfb', 'latin1'), Buffer.from([0, 0, 0, 2]), Buffer.alloc(100)]),
    ],
  ])('%s is named with its package', async (program, packageName, contents) => {
    const { host, source } = await rig();
    await writeFile(source, contents);
    const { stdout, stderr } = await runChild(
      `process.env.PATH = '/nonexistent';
       const registry = new lib.RootfsRegistry(args.config);
       await registry.publishStack('new', args.source).catch(({ code, message }) => console.log(code, message));
       await registry.close();`,
      { config: host.registry.config, source },
    );
    expect(stderr).toBe('');
    expect(stdout).toMatch(new RegExp(`^PROGRAM_NOT_FOUND .*${program}.*${packageName}`));
    expect(await exists(host.template('new'))).toBe(false);
  });
});

test('a full disk: its code, and nothing left', async ({ skip }) => {
  const missing = lacks('mke2fs', 'zstd');
  if (missing !== undefined) skip(missing);
  const { host, source } = await rig();
  const tree = join(host.root, 'tree');
  await mkdir(tree);
  await writeFile(join(tree, 'file'), pattern(40 * MiB));
  const built = await host.registry.publishStack('tree', tree);
  await execute('bash', [
    '-c',
    'zstd -q "$1" -o "$2" && tar -C "$3" -cf "$4" .',
    'bash',
    built.templatePath,
    `${source}.zst`,
    tree,
    `${source}.tar`,
  ]);
  const folder = newWorkspace().disk('small', ['mke2fs', '-q', '-F', '-t', 'ext4'], 24 * MiB);
  const small = await Host.in(folder);
  const free = async () => (await statfs(folder)).bavail;
  await small.registry.stacks();
  await makeExt4Image(source, 8 * MiB);
  await small.registry.publishStack('fits', source);
  const before = await free();
  for (const from of [built.templatePath, `${source}.zst`, `${source}.tar`, tree]) {
    await rejection(small.registry.publishStack('large', from), 'ENOSPC');
    await rejection(small.registry.publishStack('fits', from, { replace: true }), 'ENOSPC');
    expect(await small.stagedInCatalog()).toEqual([]);
  }
  expect(await free()).toBe(before);
  expect(await sha256Of(small.template('fits'))).toBe(await sha256Of(source));
});

/** Copies with names like those of container images. */
async function named(host: Host, source: string): Promise<string[]> {
  const names = ['debian:12', 'docker-archive:image'];
  for (const name of names) await copyFile(source, join(host.root, name));
  return names;
}

/** Where a part of the first group lies, in bytes. */
async function blockOf(image: string, part: string): Promise<number> {
  const { stdout } = await run('dumpe2fs', [image]);
  const blockSize = Number(/Block size:\s+(\d+)/.exec(stdout)?.[1]);
  return Number(new RegExp(`${part} (\\d+)`).exec(stdout)?.[1]) * blockSize;
}

async function flip(image: string, offset: number, within = 0): Promise<void> {
  const bytes = await readFile(image);
  bytes.writeUInt8((bytes.readUInt8(offset + within) ^ 0x10) & 0xff, offset + within);
  await writeFile(image, bytes);
}
