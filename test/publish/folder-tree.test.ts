// The mark of a folder, by which publishing tells that somebody wrote to it, and folders that cannot be read as a tree.
import { execFile, execFileSync } from 'node:child_process';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import {
  appendFile,
  chmod,
  chown,
  link,
  mkdir,
  open,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, onTestFinished, test } from 'vitest';
import { DEFAULT_LIMITS } from '../../src/publish/publish-options.js';
import type { FileNode, FolderNode } from '../../src/publish/tree/file-tree.js';
import { markOfFolder, readFolder } from '../../src/publish/tree/folder-tree.js';
import { runChild } from '../fixtures/child.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { KiB } from '../fixtures/images.js';
import { mountDead, mountTmpfs } from '../fixtures/mounts.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

const execute = promisify(execFile);

const READING = { limits: DEFAULT_LIMITS, includeMounts: false, otherTimeNs: 0n, checkAborted: () => {} };

async function newFolder(path?: string): Promise<string> {
  const { root } = await Host.in(path);
  const folder = join(root, 'tree');
  await mkdir(join(folder, 'etc'), { recursive: true });
  await writeFile(join(folder, 'etc/hosts'), 'one\n');
  return folder;
}

describeEachFilesystem(
  ({ path }) => {
    test('a file that the file system lays out only now is no change', async () => {
      const folder = await newFolder(path);
      const scattered = await open(join(folder, 'scattered'), 'w');
      for (let i = 0; i < 1500; i++)
        await scattered.write(Buffer.alloc(4 * KiB, 1), 0, 4 * KiB, i * 12 * KiB);
      const { blocks } = await scattered.stat();
      const mark = await markOfFolder(folder, READING);
      await scattered.sync();
      if (path.endsWith('ext4')) expect((await scattered.stat()).blocks).not.toBe(blocks);
      await scattered.close();
      expect(await markOfFolder(folder, READING)).toBe(mark);
    });

    test.for<[string, (folder: string) => Promise<unknown>]>([
      ['written to', (folder) => appendFile(join(folder, 'etc/hosts'), 'two\n')],
      ['overwritten, its time put back', (folder) => overwrite(join(folder, 'etc/hosts'))],
      ['given another mode', (folder) => chmod(join(folder, 'etc/hosts'), 0o600)],
      ['renamed', (folder) => rename(join(folder, 'etc/hosts'), join(folder, 'etc/host'))],
      ['removed', (folder) => rm(join(folder, 'etc/hosts'))],
      ['linked beside itself', (folder) => link(join(folder, 'etc/hosts'), join(folder, 'etc/again'))],
    ])('a file that is %s is one', async ([, change]) => {
      const folder = await newFolder(path);
      const mark = await markOfFolder(folder, READING);
      await change(folder);
      expect(await markOfFolder(folder, READING)).not.toBe(mark);
    });
  },
  ({ name }) => ['XFS', 'btrfs', 'ext4'].includes(name),
);

async function overwrite(path: string): Promise<void> {
  // Times may lag behind by a tick.
  await new Promise((resolve) => setTimeout(resolve, 20));
  const file = await open(path, 'r+');
  const { atime, mtime } = await file.stat();
  await file.write('two\n');
  await file.utimes(atime, mtime);
  await file.close();
}

/** Runs `change` at the `at`-th of the points where the reading can be aborted. */
function changing(at: number, change: () => void) {
  let points = 0;
  return {
    ...READING,
    checkAborted: () => {
      if (++points === at) change();
    },
  };
}

test('a file that goes between its name and its facts makes it a changed source', async () => {
  const folder = await newFolder();
  const reading = changing(1, () => rmSync(join(folder, 'etc'), { recursive: true }));
  expect((await rejection(readFolder(folder, reading), 'SOURCE_CHANGED')).message).toContain(folder);
});

test.each([
  ['goes', () => {}],
  ['becomes a file', (path: string) => writeFileSync(path, '')],
])('a folder that %s before it is read makes it a changed source', async (_, replace) => {
  const folder = await newFolder();
  // Folders are read last to first: `etc` is left when `late` is read.
  await mkdir(join(folder, 'late'));
  await writeFile(join(folder, 'late/file'), '');
  const etc = join(folder, 'etc');
  const reading = changing(2, () => {
    rmSync(etc, { recursive: true });
    replace(etc);
  });
  expect((await rejection(markOfFolder(folder, reading), 'SOURCE_CHANGED')).message).toContain(etc);
});

test('a file that goes, or becomes a link, before its bytes are read makes it a changed source', async () => {
  const folder = await newFolder();
  const path = join(folder, 'file');
  await writeFile(path, 'contents');
  const { root } = await readFolder(folder, READING);
  const { content } = root.children.get('file') as FileNode;
  await rm(path);
  await rejection(
    content.open(async () => {}),
    'SOURCE_CHANGED',
  );
  await symlink('/etc/hostname', path);
  await rejection(
    content.open(async () => {}),
    'SOURCE_CHANGED',
  );
});

test('a link leads to a folder whose name is not UTF-8', async () => {
  const folder = await newFolder();
  const bytes = Buffer.concat([Buffer.from(folder), Buffer.from([0xe9])]);
  await rename(folder, bytes);
  await symlink(bytes, folder);
  const { root, mark } = await readFolder(folder, READING);
  expect([...root.children.keys()]).toEqual(['etc']);
  expect(await markOfFolder(folder, READING)).toBe(mark);
});

test('a path of more bytes than Linux takes is refused, and a tar advised', async () => {
  const folder = await newFolder();
  const body = `process.chdir(args.folder);
    for (let i = 0; i < 20; i++) {
      require('node:fs').mkdirSync('d'.repeat(255));
      process.chdir('d'.repeat(255));
    }`;
  expect(await runChild(body, { folder })).toMatchObject({ code: 0 });
  const { message } = await rejection(readFolder(folder, READING), 'IMAGE_INVALID');
  expect(message).toMatch(new RegExp(`^${folder} .*4,095.* tar`));
  await execute('rm', ['-rf', folder]);
});

test.skipIf(lacksRoot() !== undefined || !existsSync('/dev/fuse'))(
  'a mount that cannot be looked at is published as empty',
  async () => {
    const folder = await newFolder();
    await mkdir(join(folder, 'dead'));
    await mountDead(join(folder, 'dead'));
    const { root, mounts } = await readFolder(folder, READING);
    expect([...root.children.keys()]).toEqual(['dead', 'etc']);
    expect(root.children.get('dead')).toMatchObject({ kind: 'folder', mode: 0o755, uid: 0 });
    expect(mounts).toEqual([join(folder, 'dead')]);
  },
);

test.skipIf(lacksRoot() !== undefined)('a mounted file is published as empty', async () => {
  const folder = await newFolder();
  const path = join(folder, 'etc/hosts');
  execFileSync('mount', ['--bind', '/proc/version', path]);
  onTestFinished(() => void execFileSync('umount', [path]));
  const { root } = await readFolder(folder, READING);
  expect((root.children.get('etc') as FolderNode).children.get('hosts')).toMatchObject({
    kind: 'file',
    mode: 0o644,
    content: { sizeBytes: 0 },
  });
});

test.skipIf(lacksRoot() !== undefined)(
  'a mount that a later one hides empties no folder of the same name',
  async () => {
    const folder = await newFolder();
    mountTmpfs(folder);
    await mkdir(join(folder, 'srv/below'), { recursive: true });
    mountTmpfs(join(folder, 'srv'));
    await mkdir(join(folder, 'srv/below'));
    mountTmpfs(join(folder, 'srv/below'));
    mountTmpfs(folder);
    await mkdir(join(folder, 'srv/below/mine'), { recursive: true });
    mountTmpfs(join(folder, 'srv/below/mine'));
    const { root, mounts } = await readFolder(folder, READING);
    expect(mounts).toEqual([join(folder, 'srv/below/mine')]);
    const { children } = root.children.get('srv') as FolderNode;
    expect([...(children.get('below') as FolderNode).children.keys()]).toEqual(['mine']);
  },
);

test.skipIf(lacksRoot() !== undefined).each(['proc', 'sysfs'])(
  'what is mounted of %s is refused by name, where mounts are included',
  async (kernels) => {
    const folder = await newFolder();
    const path = join(folder, 'etc/kernel');
    await mkdir(path);
    execFileSync('mount', ['-t', kernels, kernels, path]);
    onTestFinished(() => void execFileSync('umount', [path]));
    const call = readFolder(folder, { ...READING, includeMounts: true });
    expect((await rejection(call, 'IMAGE_INVALID')).message).toContain(`${path} is of ${kernels}`);
    await rejection(readFolder(path, READING), 'IMAGE_INVALID');
    await readFolder(folder, READING);
  },
);

const missing = lacksRoot() ?? lacks('setfattr');

test.skipIf(missing !== undefined)(
  'what a container engine stores in the tree keeps the marks of layers',
  async () => {
    const folder = await newFolder();
    const diffs = [
      'var/lib/docker/overlay2/abc/diff',
      'home/me/.local/share/containers/storage/overlay/abc/diff',
    ];
    for (const diff of [...diffs, 'var/lib/docker/aufs/diff/abc', 'var/lib/containerd/x/snapshots/1/fs']) {
      const layer = join(folder, diff);
      await mkdir(join(layer, 'opaque'), { recursive: true });
      await execute('mknod', [join(layer, 'gone'), 'c', '0', '0']);
      await writeFile(join(layer, '.wh.gone'), '');
      await execute('setfattr', ['-n', 'trusted.overlay.opaque', '-v', 'y', join(layer, 'opaque')]);
      await execute('setfattr', [
        '-n',
        'user.containers.override_stat',
        '-v',
        '0:0:0100755',
        join(layer, '.wh.gone'),
      ]);
      const { root } = await readFolder(folder, READING);
      const { children } = diff.split('/').reduce((at, name) => at.children.get(name) as FolderNode, root);
      expect(children.get('gone')).toMatchObject({ kind: 'character device', major: 0, minor: 0 });
      expect(children.get('opaque')?.attributes).toMatchObject([{ name: 'trusted.overlay.opaque' }]);
      expect(children.get('.wh.gone')?.attributes).toMatchObject([{ name: 'user.containers.override_stat' }]);
      // Published by itself it is a layer.
      await rejection(readFolder(layer, READING), 'IMAGE_INVALID');
    }
  },
);

test.skipIf(missing !== undefined).each([
  ['trusted.overlay.opaque', 'y', 'etc'],
  ['trusted.overlay.redirect', '/usr', 'etc'],
  ['user.overlay.whiteout', 'y', 'etc/hosts'],
  ['trusted.overlay.metacopy', '', 'etc/hosts'],
  ['user.fuseoverlayfs.opaque', 'y', 'etc'],
])('a file with %s is of an overlay, and refused', async (name, value, path) => {
  const folder = await newFolder();
  await execute('setfattr', ['-n', name, '-v', value, join(folder, path)]);
  const { message } = await rejection(readFolder(folder, READING), 'IMAGE_INVALID');
  expect(message).toContain(`${join(folder, path)} has a mark of overlayfs`);
  // An opaque folder itself is whole: it hides what is below it.
  if (path === 'etc') await readFolder(join(folder, path), READING);
});

test
  .skipIf(missing !== undefined)
  .each(['user.containers.override_stat', 'user.fuseoverlayfs.override_stat', 'user.rootlesscontainers'])(
  'a file whose owner is in %s is refused',
  async (name) => {
    const folder = await newFolder();
    await execute('setfattr', ['-n', name, '-v', '1000:1000:0100755', join(folder, 'etc/hosts')]);
    const { message } = await rejection(readFolder(folder, READING), 'IMAGE_INVALID');
    expect(message).toContain(
      `${join(folder, 'etc/hosts')} has its real owner and mode in the attribute ${name}`,
    );
  },
);

const aclFor = (user: string) =>
  `0x0200000001000700ffffffff02000700${user}04000500ffffffff10000700ffffffff20000500ffffffff`;

test.skipIf(missing !== undefined).each<[string, (path: string) => Promise<unknown>]>([
  ['owner 65534', (path) => chown(path, 70000, 0)],
  ['group 65534', (path) => chown(path, 0, 70000)],
  [
    'access list for the id -1',
    (path) => execute('setfattr', ['-n', 'system.posix_acl_access', '-v', aclFor('70110100'), path]),
  ],
])('a file with the %s is refused where the user namespace lacks the real one', async (what, give) => {
  const folder = await newFolder();
  const host = await Host.in();
  const args = { config: host.registry.config, folder };
  const body = `await new lib.RootfsRegistry(args.config).publishStack('app', args.folder, { replace: true })
    .catch(({ code, message }) => console.log(code, message));`;
  const publish = () => runChild(body, args, { under: ['unshare', '--map-root-user'] });
  expect(await publish()).toMatchObject({ code: 0, stdout: '' });
  await give(join(folder, 'etc/hosts'));
  expect((await publish()).stdout).toMatch(
    new RegExp(`^EPERM ${join(folder, 'etc/hosts')} has (the|an) ${what}, `),
  );
});

test.each(['.wh.passwd', '.wh..wh..opq'])(
  'an empty file %s hides a file of a layer, and is refused',
  async (name) => {
    const folder = await newFolder();
    await writeFile(join(folder, 'etc', name), '');
    const { message } = await rejection(readFolder(folder, READING), 'IMAGE_INVALID');
    expect(message).toContain(`${join(folder, 'etc', name)} is a whiteout`);
    await writeFile(join(folder, 'etc', name), 'white');
    await readFolder(folder, READING);
  },
);
