// The whole life of an image by the command line: published, cloned, listed, forked, kept, accounted for, removed.
import { execFileSync } from 'node:child_process';
import { chmod, mkdir, open, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { exists } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';
import { cli, cliError, cliJson } from './run-cli.js';

/** With and without reflink; the library's own tests go through all file systems. */
const inPart = ({ name }: { name: string }) => ['XFS', 'ext4'].includes(name);

const STACK_KEYS = ['name', 'templatePath', 'sizeBytes', 'sha256', 'replaced', 'format'];
const SLOT_KEYS = [
  'vmId',
  'rawId',
  'path',
  'health',
  'stack',
  'sourceSha256',
  'sizeBytes',
  'grown',
  'createdAt',
];
const DERIVED_KEYS = ['vmId', 'stack', 'path', 'sourceSha256', 'sizeBytes', 'strategy', 'attempts'];
const SNAPSHOT_KEYS = ['name', 'path', 'vmId', 'stack', 'createdAt', 'files'];

describeEachFilesystem((filesystem) => {
  test('publish, clone, ls, inspect, grow, fork, commit, usage, rm-stack', async () => {
    const host = await Host.in(filesystem.path);
    const how = filesystem.reflinks ? 'reflink' : 'copy';
    const tree = join(host.root, 'tree');
    await mkdir(join(tree, 'etc'), { recursive: true });
    await writeFile(join(tree, 'etc/motd'), 'hello');
    const published = await cliJson(host, ['publish', 'demo', tree, '--size', '64M']);
    expect(Object.keys(published)).toEqual(STACK_KEYS);
    expect(published).toMatchObject({ name: 'demo', sizeBytes: 64 * MiB, replaced: false, format: 'folder' });
    expect(await cliError(host, ['publish', 'demo', tree])).toBe('STACK_EXISTS 4');

    await cliJson(host, ['clone', 'a/b', 'demo', '--writable']);
    const { slots } = (await cliJson(host, ['ls'])) as { slots: object[] };
    expect(slots.map(Object.keys)).toEqual([SLOT_KEYS]);
    expect(slots).toMatchObject([{ rawId: 'a/b', stack: 'demo', health: 'whole' }]);
    expect((await cli(host, ['ls'])).stdout).toMatch(/^a\/b +demo +64 MiB +whole +\d{4}-/m);
    // The stack is known: nobody has to say it again.
    expect(await cliJson(host, ['grow', 'a/b', '128M'])).toMatchObject({ sizeBytes: 128 * MiB });
    const inspected = await cliJson(host, ['inspect', 'a/b']);
    expect(Object.keys(inspected)).toEqual([
      ...SLOT_KEYS,
      'strategy',
      'use',
      'outdated',
      'aloneBytes',
      'sharedBytes',
      'extents',
    ]);
    expect(inspected).toMatchObject({ grown: true, strategy: how, use: 'unused', outdated: false });
    expect((await cli(host, ['inspect', 'a/b'])).stdout).toMatch(/^Stack +demo, which is unchanged$/m);

    const fork = await cliJson(host, ['fork', 'a/b', 'c', '--mode', '0640']);
    expect(Object.keys(fork)).toEqual(DERIVED_KEYS);
    expect(await cliError(host, ['fork', 'a/b', 'c'])).toBe('SLOT_EXISTS 4');
    expect(await cliJson(host, ['commit', 'c', 'golden'])).toMatchObject({
      name: 'golden',
      sizeBytes: 128 * MiB,
    });
    const usage = await cliJson(host, ['usage']);
    expect(Object.keys(usage)).toEqual([
      'stacks',
      'slots',
      'totalBytes',
      'partialPullBytes',
      'scattered',
      'filesystem',
    ]);
    expect(usage).toMatchObject({
      slots: 2,
      stacks: [
        { stack: 'demo', slots: 2 },
        { stack: 'golden', slots: 0 },
      ],
    });
    expect((await cli(host, ['usage'])).stdout).toMatch(/^2 clones, .* on disk in all; .* are free\.$/m);

    expect(await cliError(host, ['rm-stack', 'demo'])).toBe('STACK_IN_USE 4');
    expect(await cliJson(host, ['rm-stack', 'golden'])).toEqual({ stack: 'golden', removed: true });
    expect(await cliJson(host, ['rm-stack', 'golden'])).toEqual({ stack: 'golden', removed: false });
    expect(await exists(host.template('golden'))).toBe(false);
  });

  test('export, snapshot, snapshots, verify, restore, rm-snapshot', async () => {
    const host = await Host.in(filesystem.path);
    await host.addExt4Template('debian', 16 * MiB);
    await cliJson(host, ['clone', 'vm-1', 'debian', '--writable']);
    const jail = join(host.root, 'jail.ext4');
    expect(await cliJson(host, ['export', 'vm-1', jail])).toEqual({
      path: jail,
      sizeBytes: 16 * MiB,
      strategy: 'hardlink',
      attempts: [],
    });
    expect(await cliJson(host, ['export', 'vm-1', jail])).toMatchObject({ strategy: 'hardlink' });
    const state = join(host.root, 'state');
    await writeFile(state, 'paused');
    const snapshot = (await cliJson(host, ['snapshot', 'vm-1', 'before', state])) as { path: string };
    expect(Object.keys(snapshot)).toEqual([...SNAPSHOT_KEYS, 'strategies']);
    execFileSync('sha256sum', ['--check', '--strict', 'SHA256SUMS'], { cwd: snapshot.path, stdio: 'pipe' });
    const { snapshots } = (await cliJson(host, ['snapshots'])) as { snapshots: object[] };
    expect(snapshots.map(Object.keys)).toEqual([SNAPSHOT_KEYS]);
    expect((await cli(host, ['verify', 'before'])).stdout).toBe('before: all as it was.\n');
    const restored = await cliJson(host, ['restore', 'before', 'vm-2']);
    expect(Object.keys(restored)).toEqual([...DERIVED_KEYS, 'pooled', 'files']);
    expect(await readFile((restored as { files: string[] }).files[0] as string, 'utf8')).toBe('paused');
    execFileSync('truncate', ['-s1', join(snapshot.path, 'state')]);
    expect(await cliError(host, ['verify', 'before'])).toBe('SNAPSHOT_CORRUPT 1');
    expect(await cliError(host, ['snapshot', 'vm-1', '../x'])).toBe('INVALID_SNAPSHOT_NAME 2');
    expect(await cliError(host, ['verify', 'none'])).toBe('SNAPSHOT_NOT_FOUND 3');
    expect(await cliJson(host, ['rm-snapshot', 'before'])).toEqual({ snapshot: 'before', removed: true });
  });
}, inPart);

test('a snapshot of a clone that is open is refused where that is asked for', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  const { path } = await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
  const file = await open(path, 'r+');
  expect(await cliError(host, ['snapshot', 'vm-1', 'first', '--refuse-in-use'])).toBe('SLOT_IN_USE 4');
  await cliJson(host, ['snapshot', 'vm-1', 'first']);
  await file.close();
});

test('snapshots lie where they are told to', async () => {
  const host = await Host.in();
  await host.addExt4Template('debian', 16 * MiB);
  await cliJson(host, ['clone', 'vm-1', 'debian', '--writable']);
  const elsewhere = join(host.root, 'snapshots');
  const { path } = (await cliJson(host, ['snapshot', 'vm-1', 'a', '--snapshots', elsewhere])) as {
    path: string;
  };
  expect(path).toBe(join(elsewhere, 'a'));
  const env = { MICROVM_ROOTFS_SNAPSHOTS_DIR: elsewhere };
  expect((await cli(host, ['verify', 'a'], { env })).stdout).toBe('a: all as it was.\n');
  expect(await cliJson(host, ['snapshots'])).toEqual({ snapshots: [] });
});

/** A user that may read all but what belongs to root and is closed. */
const NOBODY = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'];

test('what cannot be read hides no other snapshot, and what was verified is told', async ({ skip }) => {
  if (lacksRoot()) skip(lacksRoot());
  const host = await Host.in();
  await chmod(host.root, 0o755);
  await host.addExt4Template('debian', 16 * MiB);
  await cliJson(host, ['clone', 'vm-1', 'debian', '--writable']);
  const state = join(host.root, 'state');
  await writeFile(state, 'paused');
  const folders = join(host.clonesDir, '.microvm-rootfs', 'snapshots');
  for (const name of ['s1', 's2', 's3']) await cliJson(host, ['snapshot', 'vm-1', name, state]);
  execFileSync('truncate', ['-s1', join(folders, 's2', 'state')]);
  const verified = await cli(host, ['verify', 'none', 's1', 's2', 's3', '--json']);
  expect(JSON.parse(verified.stdout).snapshots).toMatchObject([{ name: 's1' }, { name: 's3' }]);
  expect(JSON.parse(verified.stderr).error).toMatchObject({
    code: 'SNAPSHOT_CORRUPT',
    message: expect.stringMatching(/^2 failed: none, s2\. First error \(s2\): /),
  });
  expect(verified.code).toBe(1);
  execFileSync('chown', ['-R', '65534', host.clonesDir, host.templateDir]);
  execFileSync('chown', ['root', join(folders, 's1', 'SHA256SUMS')]);
  await chmod(join(folders, 's1', 'SHA256SUMS'), 0);
  const listed = await cli(host, ['snapshots', '--json'], { under: NOBODY });
  expect(JSON.parse(listed.stdout).snapshots).toMatchObject([{ name: 's2' }, { name: 's3' }]);
  expect([listed.code, JSON.parse(listed.stderr).error.code]).toEqual([5, 'EACCES']);
});

test('a kind of ready slots that cannot be read hides no other', async ({ skip }) => {
  if (lacksRoot()) skip(lacksRoot());
  const host = await Host.in();
  await chmod(host.root, 0o755);
  await host.addExt4Template('debian', 16 * MiB);
  await cliJson(host, ['prewarm', 'debian', '--count', '2']);
  const pool = join(host.clonesDir, '.microvm-rootfs', 'pool');
  const [hidden = ''] = (await readdir(pool)).filter((name) => name.endsWith('.json'));
  await host.addExt4Template('alpine', 8 * MiB);
  await cliJson(host, ['prewarm', 'alpine', '--count', '1']);
  execFileSync('chown', ['-R', '65534', host.clonesDir, host.templateDir]);
  execFileSync('chown', ['root', join(pool, hidden)]);
  await chmod(join(pool, hidden), 0);
  const listed = await cli(host, ['pool', '--json'], { under: NOBODY });
  expect(JSON.parse(listed.stdout).readySlots).toMatchObject([{ stack: 'alpine', count: 1 }]);
  expect([listed.code, JSON.parse(listed.stderr).error.code]).toEqual([5, 'EACCES']);
});

/** `vm-2` cannot be read, nor can a folder that is nobody's slot, and one in the trash cannot be removed. */
async function hostWithClosed(): Promise<Host> {
  const host = await Host.in();
  await chmod(host.root, 0o755);
  await host.addExt4Template('debian', 16 * MiB);
  await host.addExt4Template('alpine', 16 * MiB);
  for (const vm of ['vm-1', 'vm-2', 'vm-3']) await cliJson(host, ['clone', vm, 'debian', '--writable']);
  const inTrash = join(host.clonesDir, '.microvm-rootfs/trash/closed');
  const foreign = join(host.clonesDir, 'foreign');
  for (const folder of [foreign, inTrash]) await mkdir(folder);
  execFileSync('chown', ['-R', '65534', host.clonesDir, host.templateDir]);
  for (const closed of [join(host.clonesDir, 'vm-2'), foreign, inTrash]) {
    execFileSync('chown', ['root', closed]);
    await chmod(closed, 0);
  }
  return host;
}

test('gc by a list keeps what it cannot compare with the list, and releases the rest', async ({ skip }) => {
  if (lacksRoot()) skip(lacksRoot());
  const host = await hostWithClosed();
  const under = { under: NOBODY };
  // A list of nobody whose clone can be read may be a wrong one.
  const nobody = await cli(host, ['gc', '--keep', 'vm-2', '--yes'], under);
  expect([nobody.code, nobody.stderr]).toEqual([
    2,
    expect.stringContaining('INVALID_ARGUMENT: no VM of --keep'),
  ]);
  expect((await host.slotNames()).sort()).toEqual(['foreign', 'vm-1', 'vm-2', 'vm-3']);
  const listed = await cli(host, ['gc', '--keep', 'vm-1', '--yes', '--json'], under);
  expect(JSON.parse(listed.stdout).released).toEqual(['vm-3']);
  const [warning = '', error = '', ...more] = listed.stderr.trim().split('\n');
  expect([listed.code, JSON.parse(error).error.code]).toEqual([5, 'EACCES']);
  expect(error).toContain(join(host.clonesDir, 'vm-2'));
  expect(JSON.parse(warning).warning.code).toBe('MICROVM_ROOTFS_SWEEP');
  expect(more).toEqual([]);
  const all = await cli(host, ['gc', '--keep-none', '--yes', '--json'], under);
  expect([all.code, JSON.parse(all.stdout).released]).toEqual([5, ['vm-1']]);
});

test('gc by a list releases no clone that can be read only when the list was compared', async ({ skip }) => {
  const reason = lacksRoot() ?? lacks('strace');
  if (reason !== undefined) skip(reason);
  const host = await Host.in();
  await host.addExt4Template('debian', 16 * MiB);
  for (const vm of ['vm/1', 'vm/2']) await cliJson(host, ['clone', vm, 'debian', '--writable']);
  // One thread, and so the first look alone.
  const inject = ['-P', join(host.clonesDir, 'vm_2'), '-e', 'inject=openat:error=EIO:when=1'];
  const { code, stdout, stderr } = await cli(host, ['gc', '--keep', 'vm/1', '--yes', '--json'], {
    under: ['strace', '-f', '-y', '-qqq', '-o', '/dev/null', ...inject],
    env: { UV_THREADPOOL_SIZE: '1' },
  });
  expect([code, JSON.parse(stderr).error.code]).toEqual([5, 'EIO']);
  expect(JSON.parse(stdout).released).toEqual([]);
  expect((await host.slotNames()).sort()).toEqual(['vm_1', 'vm_2']);
});

test('where there is no shell, that is named, and not the program that it was to start', async ({ skip }) => {
  const missing = lacksRoot() ?? lacks('resize2fs');
  if (missing) skip(missing);
  const host = await Host.in();
  const image = await host.addExt4Template('a', 16 * MiB);
  const withoutShell = 'mount --bind /dev/null "$(readlink -f /bin/sh)" && exec "$@"';
  const under = ['unshare', '--mount', 'sh', '-c', withoutShell, 'sh'];
  const { stderr } = await cli(host, ['grow', '--image', image, '32M'], { under });
  expect(stderr).toContain('PROGRAM_NOT_FOUND: cannot run /bin/sh: ');
});

test('rm-stack that cannot read all clones says how to remove it all the same', async ({ skip }) => {
  if (lacksRoot()) skip(lacksRoot());
  const host = await hostWithClosed();
  const under = { under: NOBODY };
  const { stderr: inUse } = await cli(host, ['rm-stack', 'debian'], under);
  expect(inUse).toContain('STACK_IN_USE: removing stack debian: there are 2 clones of it');
  const { code, stderr } = await cli(host, ['rm-stack', 'alpine'], under);
  expect([code, stderr]).toEqual([5, expect.stringContaining('; --force removes it anyway')]);
  expect(await cliJson(host, ['rm-stack', 'alpine', '--force'], under)).toMatchObject({ removed: true });
});

test('pool lists what lies ready, by kind', async () => {
  const host = await Host.in();
  await host.addExt4Template('debian', 16 * MiB);
  expect(await cliJson(host, ['pool'])).toEqual({ readySlots: [] });
  await cliJson(host, ['prewarm', 'debian', '--count', '2']);
  await cliJson(host, ['prewarm', 'debian', '--count', '1', '--size', '32M', '--mode', '0640']);
  const kind = { stack: 'debian', sourceSha256: expect.stringMatching(/^[0-9a-f]{64}$/) };
  expect(await cliJson(host, ['pool'])).toEqual({
    readySlots: [
      { ...kind, sizeBytes: 16 * MiB, count: 2 },
      { ...kind, sizeBytes: 32 * MiB, mode: 0o640, count: 1 },
    ],
  });
  expect((await cli(host, ['pool'])).stdout).toMatch(/^debian +- +32 MiB +- +0640 +1$/m);
});

test('prewarm --snapshot makes ready slots of a snapshot, and pool names it', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
  await host.registry.snapshotSlot('vm-1', 'paused');
  const made = await cliJson(host, ['prewarm', 'paused', '--snapshot', '--count', '3']);
  expect(made).toEqual({ snapshot: 'paused', count: 3 });
  expect((await cli(host, ['pool'])).stdout).toMatch(/^debian +paused +6 B +- +- +3$/m);
});
