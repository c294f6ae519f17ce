// What is hard to keep of a tree: it is in the image, or the error names the file.
import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { appendFile, mkdir, open, readFile, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { runChild } from '../fixtures/child.js';
import { Host } from '../fixtures/host.js';
import { faultsOf, GiB, KiB, MiB, pattern, readInside, run } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { type Member, makeTar } from '../fixtures/tars.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';
import { makeTree } from '../fixtures/trees.js';
import { newWorkspace } from '../fixtures/workspace.js';

const execute = promisify(execFile);

async function newTree(): Promise<{ host: Host; tree: string; at: (name: string) => string }> {
  const host = await Host.in();
  const tree = join(host.root, 'tree');
  await mkdir(tree);
  return { host, tree, at: (name) => join(tree, name) };
}

/** Mounts a clone of a stack. */
async function mountClone(host: Host, stack: string): Promise<string> {
  const { path } = await host.registry.cloneForVm('vm', stack, { writable: true });
  return newWorkspace().mount('image', ['-o', 'loop,noatime', path]);
}

/** `stat -c FORMAT` of files in a stack. */
async function statsInside(
  host: Host,
  stack: string,
  format: string,
  names: readonly string[],
): Promise<string[]> {
  const mounted = await mountClone(host, stack);
  const { stdout } = await execute('stat', ['-c', format, ...names.map((name) => join(mounted, name))]);
  return stdout.trimEnd().split('\n');
}

async function publishTar(host: Host, members: readonly Member[], options = {}) {
  const path = join(host.root, 'made.tar');
  await writeFile(path, makeTar(members));
  return host.registry.publishStack('tar', path, { replace: true, ...options });
}

describe('a tree keeps', () => {
  test('times to the nanosecond, from 1901 to 2446', async ({ skip }) => {
    const missing = lacksRoot();
    if (missing !== undefined) skip(missing);
    const host = await Host.in();
    const times = ['-2147483648', '-1.5', '0', '2147483648.123456789', '4294967296', '15032385535.999999999'];
    await publishTar(
      host,
      times.map((mtime, i) => ({ path: `f${i}`, mtime })),
    );
    expect(await faultsOf(host.template('tar'))).toBe('');
    const names = times.map((_, i) => `f${i}`);
    expect(await statsInside(host, 'tar', '%.9Y', names)).toEqual([
      '-2147483648.000000000',
      '-1.500000000',
      '0.000000000',
      '2147483648.123456789',
      '4294967296.000000000',
      '15032385535.999999999',
    ]);
  });

  test('so does a folder', async ({ skip }) => {
    const missing = lacksRoot();
    if (missing !== undefined) skip(missing);
    const { host, tree, at } = await newTree();
    // Nanoseconds in 64 bits end in 2262.
    const times = ['-1.500000000', '2147483648.123456789', '9223372037.000000001', '15032385534.999999999'];
    for (const [i, time] of times.entries()) {
      await writeFile(at(`f${i}`), '');
      await execute('touch', ['-d', `@${time}`, at(`f${i}`)]);
    }
    await host.registry.publishStack('tree', tree);
    const names = times.map((_, i) => `f${i}`);
    expect(await statsInside(host, 'tree', '%.9Y', names)).toEqual(times);
  });

  test('sockets, pipes, large device numbers and links of every length', async ({ skip }) => {
    const missing = lacksRoot();
    if (missing !== undefined) skip(missing);
    const { host, tree, at } = await newTree();
    await execute('python3', [
      '-c',
      'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])',
      at('s'),
    ]).catch(() => skip('needs python3, to make a socket'));
    await execute('mkfifo', [at('p')]);
    await execute('mknod', [at('c'), 'c', '300', '70000']);
    for (const length of [1, 59, 60, 61, 4095]) await symlink('x'.repeat(length), at(`l${length}`));
    await host.registry.publishStack('tree', tree);
    expect(await faultsOf(host.template('tree'))).toBe('');
    const names = ['s', 'p', 'c', 'l1', 'l59', 'l60', 'l61', 'l4095'];
    const { stdout } = await execute('stat', ['-c', '%F %s %t:%T', ...names.map(at)]);
    // A socket has no length of its own; that of a link is its target's.
    expect(await statsInside(host, 'tree', '%F %s %t:%T', names)).toEqual(stdout.trimEnd().split('\n'));
  });

  test('files in thousands of pieces, folders of thousands of files, and more inodes than a group has', async () => {
    const { host, tree, at } = await newTree();
    const scattered = await open(at('scattered'), 'w');
    for (let i = 0; i < 1500; i++) await scattered.write(pattern(4 * KiB, i + 1), 0, 4 * KiB, i * 12 * KiB);
    await scattered.close();
    await mkdir(at('many'));
    await execute('bash', ['-c', 'cd "$1" && seq -f "%0100g" 12000 | xargs touch', 'bash', at('many')]);
    await writeFile(at('many/last'), 'last\n');
    await host.registry.publishStack('tree', tree);
    expect(await faultsOf(host.template('tree'))).toBe('');
    expect(await readInside(host.template('tree'), '/many/last')).toBe('last\n');
    await run('debugfs', ['-R', `dump /scattered ${join(host.root, 'out')}`, host.template('tree')]);
    expect((await readFile(join(host.root, 'out'))).equals(await readFile(at('scattered')))).toBe(true);
  });

  test('as many links as it has, and a grown clone has room for more than their inodes', async () => {
    const host = await Host.in();
    const links = Array.from({ length: 60_000 }, (_, i) => ({
      path: `d${i % 60}/${i}`,
      type: '2',
      target: 'x',
    }));
    await publishTar(host, links);
    const { path } = await host.registry.cloneForVmWithSize('vm', 'tar', 8 * GiB);
    const { stdout } = await execute('dumpe2fs', ['-h', path]);
    const number = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(stdout)?.[1]);
    const tables = number('Inode count') * number('Inode size');
    expect(tables / (number('Block count') * number('Block size'))).toBeLessThan(0.07);
  });

  test('two files of one inode number that are not linked, as a FUSE file system of several shows them', async ({
    skip,
  }) => {
    const missing = lacksRoot() ?? lacks('fuse-overlayfs');
    if (missing !== undefined) skip(missing);
    const { host } = await newTree();
    const workspace = newWorkspace();
    const contents = { passwd: 'names\n', shadow: 'secrets\n' };
    const layers = Object.entries(contents).map(([name, text]) => {
      const layer = workspace.disk(name, ['mke2fs', '-q', '-F', '-t', 'ext4']);
      mkdirSync(join(layer, 'etc'));
      writeFileSync(join(layer, 'etc', name), text, { mode: name === 'shadow' ? 0o600 : 0o644 });
      return layer;
    });
    const options = `lowerdir=${layers.join(':')}`;
    const merged = workspace.fuse('merged', (folder) => ['fuse-overlayfs', '-f', '-o', options, folder]);
    const [one, other] = await Promise.all(
      Object.keys(contents).map((name) => stat(join(merged, 'etc', name))),
    );
    expect(one?.ino).toBe(other?.ino);
    await host.registry.publishStack('tree', merged);
    const image = host.template('tree');
    for (const [name, text] of Object.entries(contents))
      expect(await readInside(image, `/etc/${name}`)).toBe(text);
    expect(await statsInside(host, 'tree', '%h %a', ['etc/passwd', 'etc/shadow'])).toEqual([
      '1 644',
      '1 600',
    ]);
    expect(await faultsOf(image)).toBe('');
  });

  test('a lost+found of its own with what is in it', async () => {
    const { host, tree, at } = await newTree();
    await mkdir(at('lost+found/found'), { recursive: true });
    await mkdir(at('a'));
    await writeFile(at('lost+found/file'), 'x\n');
    await host.registry.publishStack('tree', tree);
    expect(await faultsOf(host.template('tree'))).toBe('');
    expect(await readInside(host.template('tree'), '/lost+found/file')).toBe('x\n');
  });

  test('many attributes, in the inode and beside it, and access lists', async ({ skip }) => {
    const missing = lacksRoot() ?? lacks('setfattr');
    if (missing !== undefined) skip(missing);
    const host = await Host.in();
    const pax = {
      'SCHILY.xattr.user.small': 'a',
      'SCHILY.xattr.user.large': Buffer.alloc(3000, 'b'),
      'SCHILY.xattr.trusted.other': 'c',
      'SCHILY.acl.access': 'user::rw-,user:joe:r--,group::r--,mask::r--,other::---',
    };
    const passwd = Buffer.from('root:x:0:0::/:\njoe:x:1234:1234::/:\n');
    await publishTar(host, [
      { path: 'etc/passwd', contents: passwd },
      { path: 'f', pax },
    ]);
    expect(await faultsOf(host.template('tar'))).toBe('');
    const mounted = await mountClone(host, 'tar');
    const { stdout } = await execute('getfattr', ['-hd', '-m', '-', '-e', 'text', join(mounted, 'f')]);
    expect(stdout).toContain('user.small="a"');
    expect(stdout).toContain(`user.large="${'b'.repeat(3000)}"`);
    expect(stdout).toContain('trusted.other="c"');
    const acl = await execute('getfattr', ['-n', 'system.posix_acl_access', '-e', 'hex', join(mounted, 'f')]);
    // Version 2, then the named user 1234 (0x4d2) with the permission to read.
    expect(acl.stdout).toContain('02000400d2040000');
  });
});

describe('a tree is refused, by the name of the file, for', () => {
  const file = (more: Partial<Member> = {}): Member => ({ path: 'here/file', ...more });
  test.each([
    ['a time after 2446', [file({ mtime: '15032385536' })], '2446'],
    [
      'attributes of more than a block',
      [file({ pax: { 'SCHILY.xattr.user.big': 'x'.repeat(20_000) } })],
      'user.big',
    ],
    ['a whiteout of overlayfs', [file({ type: '3' })], 'overlayfs'],
    ['an unknown kind of member', [file({ type: 'Z' })], '"Z"'],
    ['a hard link to what is not there', [file({ type: '1', target: 'nowhere' })], 'nowhere'],
    ['a loop of links', [{ path: 'here', type: '2', target: 'here' }, file()], 'loop'],
  ] as const)('%s', async (_, members, word) => {
    const host = await Host.in();
    const { message } = await rejection(publishTar(host, members as readonly Member[]), 'IMAGE_INVALID');
    expect(message).toContain('here/file');
    expect(message).toContain(word);
    expect(message).not.toContain('sizeBytes');
    expect(await host.stagedInCatalog()).toEqual([]);
  });

  test('more than 65,000 hard links', async () => {
    const host = await Host.in();
    const links = Array.from({ length: 65_000 }, (_, i) => ({ path: `l${i}`, type: '1', target: 'file' }));
    const { message } = await rejection(publishTar(host, [{ path: 'file' }, ...links]), 'IMAGE_INVALID');
    expect(message).toContain('hard links');
    await publishTar(host, [{ path: 'file' }, ...links.slice(1)]);
    expect(await faultsOf(host.template('tar'))).toBe('');
  });

  test('more blocks than limits.maxBytes: a byte of a sparse file takes one', async () => {
    const host = await Host.in();
    const parts = 2000;
    const map = Array.from({ length: parts }, (_, i) => `${i * 4096},1`).join();
    const pax = { 'GNU.sparse.size': `${parts * 4096}`, 'GNU.sparse.map': map };
    const members = [{ path: 'file', contents: Buffer.alloc(parts, 'x'), pax }];
    const limits = { maxBytes: 4 * MiB };
    const { message } = await rejection(publishTar(host, members, { limits }), 'SOURCE_TOO_LARGE');
    expect(message).toContain('limits.maxBytes');
    await publishTar(host, members, { limits: { maxBytes: 16 * MiB } });
    expect(await faultsOf(host.template('tar'))).toBe('');
  });

  test('more than its limits', async () => {
    const host = await Host.in();
    const deep: Member[] = [{ path: 'deep', pax: { path: `${'d/'.repeat(2000)}f` } }];
    const { message } = await rejection(publishTar(host, deep), 'SOURCE_TOO_LARGE');
    expect(message).toContain('maxDepth');
    const three = [{ path: 'a' }, { path: 'b' }, { path: 'c' }];
    await rejection(publishTar(host, three, { limits: { maxFiles: 2 } }), 'SOURCE_TOO_LARGE');
    await publishTar(host, three, { limits: { maxFiles: 3 } });
    await publishTar(host, deep, { limits: { maxDepth: 3000 } });
    expect(await faultsOf(host.template('tar'))).toBe('');
    await execute('bash', ['-c', 'head -c 3000000 /dev/zero | gzip > "$1"', 'bash', join(host.root, 'gz')]);
    const bomb = host.registry.publishStack('x', join(host.root, 'gz'), { limits: { maxBytes: 2_000_000 } });
    expect((await rejection(bomb, 'SOURCE_TOO_LARGE')).message).toContain('maxBytes');
    expect(await host.stagedInCatalog()).toEqual([]);
  });
});

describe('the image of a tree', () => {
  test('is no larger for holes, however long', async () => {
    const { host, tree, at } = await newTree();
    await writeFile(at('lastlog'), 'x');
    await truncate(at('lastlog'), 300 * GiB);
    const { sizeBytes } = await host.registry.publishStack('folder', tree);
    expect(sizeBytes).toBe(128 * MiB);
    await execute('tar', ['-S', '-C', tree, '-cf', join(host.root, 'tar'), '.']);
    expect((await host.registry.publishStack('tar', join(host.root, 'tar'))).sizeBytes).toBe(128 * MiB);
    expect(await faultsOf(host.template('tar'))).toBe('');
  });

  test('is the same from a tar of every dialect, sparse or not', async () => {
    const { host, tree, at } = await newTree();
    await mkdir(at('etc'));
    await writeFile(at('etc/hostname'), 'microvm\n');
    await writeFile(at('sparse'), 'head');
    await truncate(at('sparse'), 3 * MiB);
    await appendFile(at('sparse'), 'tail');
    await execute('find', [tree, '-exec', 'touch', '-d', '@1600000000', '{}', '+']);
    const { sha256 } = await host.registry.publishStack('tree', tree);
    const path = join(host.root, 'dialect.tar');
    for (const options of [
      ['--format=v7'],
      ['--format=ustar'],
      ['--format=oldgnu', '-S'],
      ['--format=gnu', '-S'],
      ['--format=posix', '-S', '--sparse-version=0.0'],
      ['--format=posix', '-S', '--sparse-version=0.1'],
      ['--format=posix', '-S', '--sparse-version=1.0'],
    ]) {
      await execute('tar', [...options, '--numeric-owner', '-C', tree, '-cf', path, '.']);
      const published = await host.registry.publishStack('tar', path, { replace: true });
      expect(published.sha256, options.join(' ')).toBe(sha256);
    }
  });

  test('does not depend on environment, umask or default ACL', async ({ skip }) => {
    const missing = lacksRoot() ?? lacks('setfattr', 'xz');
    if (missing !== undefined) skip(missing);
    const { host, tree } = await newTree();
    await makeTree(tree);
    const path = join(host.root, 'tree.tar');
    await execute('tar', ['--numeric-owner', '--format=posix', '--xattrs', '-C', tree, '-cf', path, '.']);
    await execute('xz', ['-0', path]);
    const { sha256 } = await host.registry.publishStack('plain', `${path}.xz`);
    // user::rwx, group::---, other::--- for whatever is made in the catalog.
    const acl = `0x02000000${'01000700ffffffff'}${'04000000ffffffff'}${'20000000ffffffff'}`;
    await run('setfattr', ['-n', 'system.posix_acl_default', '-v', acl, host.templateDir]);
    const { stdout, stderr } = await runChild(
      `process.umask(0o077);
       const registry = new lib.RootfsRegistry(args.config);
       console.log((await registry.publishStack('odd', args.path)).sha256);
       await registry.close();`,
      { config: host.registry.config, path: `${path}.xz` },
      {
        env: {
          TAR_OPTIONS: '--exclude=*',
          XZ_DEFAULTS: '--memlimit=1MiB',
          MKE2FS_SYNC: '1',
          MKE2FS_DEVICE_SECTSIZE: '4096',
          SOURCE_DATE_EPOCH: '1',
          E2FSPROGS_FAKE_TIME: '5',
          TZ: 'Asia/Kathmandu',
          LC_ALL: 'tr_TR.UTF-8',
        },
      },
    );
    expect(stderr).toBe('');
    expect(stdout).toBe(`${sha256}\n`);
    expect((await stat(join(host.templateDir, 'odd'))).mode & 0o777).toBe(0o755);
    expect((await stat(host.template('odd'))).mode & 0o777).toBe(0o444);
  });

  test('has nothing of what is mounted in the tree, unless asked', async ({ skip }) => {
    const missing = lacksRoot();
    if (missing !== undefined) skip(missing);
    const { host, tree, at } = await newTree();
    await mkdir(at('proc'));
    const { sha256 } = await host.registry.publishStack('tree', tree, { replace: true });
    await execute('mount', ['-t', 'tmpfs', 'tmpfs', at('proc')]);
    try {
      await writeFile(at('proc/secret'), 'secret\n');
      await host.registry.publishStack('tree', tree, { replace: true });
      expect(await readInside(host.template('tree'), '/proc/secret')).toBe('');
      const with_ = await host.registry.publishStack('tree', tree, { replace: true, includeMounts: true });
      expect(with_.sha256).not.toBe(sha256);
      expect(await readInside(host.template('tree'), '/proc/secret')).toBe('secret\n');
    } finally {
      await execute('umount', [at('proc')]);
    }
  });
});

test('a slot that is made under umask 077 can be reached by its VMM', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'contents');
  const above = join(host.root, 'srv');
  const clonesDir = join(above, 'microvm', 'vms');
  const { stderr } = await runChild(
    `process.umask(0o077);
     const registry = new lib.RootfsRegistry(args.config);
     await registry.cloneForVm('vm', 'debian', { writable: true });
     await registry.close();`,
    { config: { ...host.registry.config, clonesDir } },
  );
  expect(stderr).toBe('');
  const modes = await Promise.all(
    [
      above,
      dirname(clonesDir),
      clonesDir,
      join(clonesDir, 'vm'),
      join(clonesDir, 'vm/rootfs.ext4.sha256'),
    ].map(async (path) => (await stat(path)).mode & 0o777),
  );
  expect(modes).toEqual([0o755, 0o755, 0o755, 0o755, 0o644]);
});
