// Processes that are not let do or see all that the kernel has: what is only an optimisation never fails a call.
import { execFileSync } from 'node:child_process';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { runChild } from '../fixtures/child.js';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { preloadedKernel } from '../fixtures/other-kernel.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

const { EPERM, ENOSYS, EOPNOTSUPP, EINVAL } = constants.errno;

// Prints the code of each call that fails.
const EVERYTHING = `
  const registry = new lib.RootfsRegistry(args.config);
  const MiB = 2 ** 20;
  const writable = { writable: true };
  const calls = {
    publish: () => registry.publishStack('published', args.tree),
    stacks: () => registry.stacks(),
    clone: () => registry.cloneForVm('vm-1', 'debian', writable),
    grow: () => registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB),
    'clone of a size': () => registry.cloneForVmWithSize('vm-2', 'debian', 48 * MiB, writable),
    many: () => registry.cloneMany(['a', 'b', 'c'].map((vmId) => ({ vmId, stack: 'debian', ...writable }))),
    prewarm: () => registry.prewarm('debian', { count: 2, pack: true }),
    fork: () => registry.forkSlot('vm-1', 'fork'),
    snapshot: () => registry.snapshotSlot('vm-1', 'paused'),
    restore: () => registry.restoreSnapshot('paused', 'restored'),
    export: () => registry.exportTo('vm-1', args.jail + '/disk'),
    'export of another owner': () => registry.exportTo('vm-2', args.jail + '/other', { owner: { uid: 1, gid: 1 } }),
    commit: () => registry.commitSlot('fork', 'committed'),
    slot: () => registry.slot('vm-1'),
    sealed: () => registry.sealedImages(),
    verify: () => registry.verify({ clones: true }),
    usage: () => registry.usage(),
    gc: () => registry.gc({ keep: ['vm-1'] }),
    recover: () => registry.recover(),
    release: () => registry.release('vm-1'),
  };
  for (const [name, call] of Object.entries(calls))
    await call().catch((error) => console.log(name + ': ' + error.code + ' ' + error.message));
  await registry.drain();
  await registry.close();
  console.log('done');`;

async function everything(host: Host, options: Parameters<typeof runChild>[2]) {
  const tree = join(host.root, 'tree');
  const jail = join(host.root, 'jail');
  execFileSync('mkdir', ['-p', join(tree, 'etc'), jail]);
  const { templateDir, clonesDir } = host;
  return runChild(EVERYTHING, { config: { templateDir, clonesDir }, tree, jail }, options);
}

async function hostOn(name: string, skip: (reason: string) => void): Promise<Host> {
  const reason = filesystemNamed(name).missing ?? lacksRoot() ?? lacks('g++');
  if (reason !== undefined) skip(reason);
  const host = await Host.in(filesystemNamed(name).path);
  await host.addExt4Template('debian', 16 * MiB);
  return host;
}

// As systemd-nspawn and LXC do.
const OTHER_BOOT_ID = [
  'unshare',
  '--mount',
  'sh',
  '-c',
  'mount -t tmpfs tmpfs /mnt && cd /proc/sys/kernel/random && cat uuid >/mnt/id && mount --bind /mnt/id boot_id && ' +
    'cd "$OLDPWD" && exec "$0" "$@"',
];
const NO_DEVICES = ['unshare', '--mount', 'sh', '-c', 'mount -t tmpfs tmpfs /dev && exec "$0" "$@"'];
const NO_PROC = ['unshare', '--mount', 'sh', '-c', 'mount -t tmpfs tmpfs /proc && exec "$0" "$@"'];

const WITHOUT_BOOT_ID = [
  ['no id of this boot', NO_PROC],
  ['an id that is its container’s own', OTHER_BOOT_ID],
] as const;

describe.each(['XFS', 'btrfs', 'ext4'])('%s', (name) => {
  test.for([
    ['EPERM', EPERM],
    ['ENOSYS', ENOSYS],
    ['EOPNOTSUPP', EOPNOTSUPP],
    ['EINVAL', EINVAL],
  ] as const)('all works where FIEMAP is refused with %s', async ([, errno], { skip }) => {
    const host = await hostOn(name, skip);
    const env = { LD_PRELOAD: preloadedKernel(host), FIEMAP_ERRNO: `${errno}`, NODE_NO_WARNINGS: '1' };
    expect(await everything(host, { env })).toMatchObject({ stdout: 'done\n', stderr: '', code: 0 });
  });

  test.for([
    ['EPERM', EPERM],
    ['ENOSYS', ENOSYS],
  ] as const)('all works where renameat2 and syncfs are refused with %s', async ([, errno], { skip }) => {
    const host = await hostOn(name, skip);
    const env = { LD_PRELOAD: preloadedKernel(host), NEW_CALLS_ERRNO: `${errno}` };
    expect(await everything(host, { env })).toMatchObject({ stdout: 'done\n', stderr: '', code: 0 });
    expect(await host.leftovers()).toEqual([]);
  });

  test.for([
    ['EPERM', EPERM],
    ['EOPNOTSUPP', EOPNOTSUPP],
  ] as const)(
    'all works where no file has two names, or none: %s, as on FAT',
    async ([, errno], { skip }) => {
      const host = await hostOn(name, skip);
      const env = { LD_PRELOAD: preloadedKernel(host), LINK_ERRNO: `${errno}` };
      expect(await everything(host, { env })).toMatchObject({ stdout: 'done\n', stderr: '', code: 0 });
      expect((await readdir(join(host.root, 'jail'))).sort()).toEqual(['disk', 'other']);
    },
  );

  test('all works without devices', async ({ skip }) => {
    const host = await hostOn(name, skip);
    const exit = await everything(host, { under: NO_DEVICES, env: { NODE_NO_WARNINGS: '1' } });
    expect(exit).toMatchObject({ stdout: 'done\n', stderr: '', code: 0 });
  });

  test('all works without /proc but resize2fs, and the error names what that needs', async ({ skip }) => {
    const host = await hostOn(name, skip);
    const exit = await everything(host, { under: NO_PROC, env: { NODE_NO_WARNINGS: '1' } });
    expect(exit).toMatchObject({ stderr: '', code: 0 });
    const [grow, clone, noSlot, ...others] = exit.stdout.split(/\n(?!ext2fs_)/);
    for (const failed of [grow, clone])
      expect(failed).toMatch(/: RESIZE_FAILED .*; it needs \/proc: mount that where this process runs$/s);
    expect(noSlot).toMatch(/^export of another owner: SLOT_NOT_FOUND/);
    expect(others).toEqual(['done', '']);
  });
});

test.for([
  ['taken meanwhile', true, {}, 'EEXIST'],
  ['free', false, {}, 'none'],
  ['free, and no rename sees to that', false, { NEW_CALLS_ERRNO: `${EINVAL}` }, 'ENOTSUP'],
] as const)(
  'where no file has two names, a copy whose name is %s replaces nothing',
  async ([, taken, env, code], { skip }) => {
    const host = await hostOn('XFS', skip);
    const { stdout } = await runChild(
      `const { native } = require(LIBRARY.replace('index.js', 'addon/native.js'));
       const { asRootfsError } = require(LIBRARY.replace('index.js', 'system/errors.js'));
       const folder = await native().openGuardedFolder(args.root, false);
       const { source } = await native().openSource(args.source);
       const { copy } = await native().newFileCopy(source, folder, 'disk');
       if (args.taken) require('node:fs').writeFileSync(args.root + '/disk', 'precious');
       const published = native().publishFileCopy(copy, {}, false);
       console.log(await published.then(() => 'none', (error) => asRootfsError('copying', error).code));
       native().dispose(copy);`,
      { root: host.root, source: host.template('debian'), taken },
      { env: { LD_PRELOAD: preloadedKernel(host), LINK_ERRNO: `${EPERM}`, ...env } },
    );
    expect(stdout).toBe(`${code}\n`);
    if (taken) expect(await readFile(join(host.root, 'disk'), 'utf8')).toBe('precious');
    expect((await readdir(host.root)).filter((name) => name.startsWith('.microvm'))).toEqual([]);
  },
);

test('doctor says what it can without /proc', async ({ skip }) => {
  const host = await hostOn('XFS', skip);
  const { templateDir, clonesDir } = host;
  const [command, ...args] = NO_PROC;
  const printed = execFileSync(
    command as string,
    [...args, process.execPath, resolve('dist/cli/main.js'), 'doctor', '--json'],
    {
      env: { ...process.env, MICROVM_ROOTFS_TEMPLATE_DIR: templateDir, MICROVM_ROOTFS_CLONES_DIR: clonesDir },
    },
  );
  expect(JSON.parse(printed.toString())).toBeDefined();
});

test.for(WITHOUT_BOOT_ID)(
  'with %s no digest is kept that only an id of a boot makes valid',
  async ([, under], { skip }) => {
    const reason = filesystemNamed('tmpfs').missing ?? lacksRoot();
    if (reason !== undefined) skip(reason);
    const host = await Host.in(filesystemNamed('tmpfs').path);
    await host.addTemplate('debian', pattern(MiB));
    const { templateDir, clonesDir } = host;
    const clone = `
    const registry = new lib.RootfsRegistry(args);
    await registry.cloneForVm('vm-' + process.hrtime.bigint(), 'debian', { writable: true });
    await registry.close();`;
    const digests = join(clonesDir, '.microvm-rootfs/digests');
    const kept = () => readdir(digests).catch(() => []);
    expect(await runChild(clone, { templateDir, clonesDir }, { under })).toMatchObject({
      stderr: '',
      code: 0,
    });
    expect(await kept()).toEqual([]);
    expect(await runChild(clone, { templateDir, clonesDir })).toMatchObject({ stderr: '', code: 0 });
    expect(await kept()).toHaveLength(1);
  },
);

test.for(WITHOUT_BOOT_ID)(
  'with %s a copied slot is no one’s to judge: it is refused, and stays',
  async ([, under], { skip }) => {
    const reason = filesystemNamed('ext4').missing ?? lacksRoot();
    if (reason !== undefined) skip(reason);
    const host = await Host.in(filesystemNamed('ext4').path);
    await host.addTemplate('debian', pattern(MiB));
    await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
    await host.registry.drain();
    // As a process of this boot leaves it that has not flushed it yet.
    const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'ascii')).trim();
    await writeFile(join(host.slot('vm-1').path, 'rootfs.ext4.unsettled'), boot);
    const { stdout, stderr } = await runChild(
      `const registry = new lib.RootfsRegistry(args);
     const told = (call) => call.then(() => 'no error', ({ code }) => code);
     const { tornSlots } = await registry.recover();
     console.log(tornSlots.length, await told(registry.cloneForVm('vm-1', 'debian', { writable: true })));
     await registry.close();`,
      { templateDir: host.templateDir, clonesDir: host.clonesDir },
      { under },
    );
    expect([stdout, stderr]).toEqual(['0 SLOT_TORN\n', '']);
    expect(await host.slotNames()).toEqual(['vm-1']);
    expect((await host.anotherRegistry().recover()).tornSlots).toEqual([]);
    expect((await host.registry.slot('vm-1'))?.health).toBe('whole');
  },
);
