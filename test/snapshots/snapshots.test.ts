// Snapshots of slots, with the files of the same moment.
import { execFileSync } from 'node:child_process';
import {
  chmod,
  mkdir,
  open,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, onTestFinished, test, vi } from 'vitest';
import { ManagedFolder } from '../../src/folder/managed-folder.js';
import { type Progress, RootfsRegistry, type Snapshot } from '../../src/index.js';
import { runChild } from '../fixtures/child.js';
import { describeEachFilesystem, filesystemNamed } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacksRoot } from '../fixtures/tools.js';
import { whileHashing } from '../fixtures/while-hashing.js';

async function paused(
  folder: string,
  config: object = {},
): Promise<{ host: Host; memory: string; state: string }> {
  const host = await Host.in(folder, config);
  await host.addExt4Template('debian', 16 * MiB);
  await host.registry.cloneForVmWithSize('vm/1', 'debian', 32 * MiB);
  const [memory, state] = [join(host.root, 'memory'), join(host.root, 'state.json')];
  await writeFile(memory, Buffer.alloc(2 * MiB, 'm'));
  await writeFile(state, '{"paused":true}');
  return { host, memory, state };
}

async function listed(host: Host): Promise<Snapshot[]> {
  const snapshots: Snapshot[] = [];
  for await (const snapshot of host.registry.snapshots()) snapshots.push(snapshot);
  return snapshots;
}

async function staged(snapshotsDir: string): Promise<string[]> {
  const staging = join(snapshotsDir, '.microvm-rootfs', 'staging');
  const sessions = await readdir(staging).catch(() => []);
  return (await Promise.all(sessions.map((session) => readdir(join(staging, session))))).flat();
}

describeEachFilesystem((filesystem) => {
  test('disk, memory and state are kept, agree with sha256sum, and come back in a new slot', async () => {
    const { host, memory, state } = await paused(filesystem.path);
    const { registry } = host;
    const disk = await readFile(host.slot('vm_1').image);
    const snapshot = await registry.snapshotSlot('vm/1', 'before upgrade', { with: [memory, state] });
    expect(snapshot).toMatchObject({
      name: 'before upgrade',
      path: join(host.clonesDir, '.microvm-rootfs', 'snapshots', 'before upgrade'),
      vmId: 'vm/1',
      stack: 'debian',
      files: [
        { name: 'rootfs.ext4', sizeBytes: 32 * MiB },
        { name: 'memory', sizeBytes: 2 * MiB },
        { name: 'state.json', sizeBytes: 15 },
      ],
    });
    const how = filesystem.reflinks ? 'reflink' : 'copy';
    expect(snapshot.strategies).toEqual([how, how, how]);
    execFileSync('sha256sum', ['--check', '--strict', 'SHA256SUMS'], { cwd: snapshot.path, stdio: 'pipe' });

    // What happens to the VM and its files afterwards is no matter.
    await writeFile(host.slot('vm_1').image, 'later', { flag: 'r+' });
    await rm(memory);
    await registry.release('vm/1');
    const progress: Progress[] = [];
    expect(
      await registry.verifySnapshot('before upgrade', { onProgress: (done) => progress.push(done) }),
    ).toMatchObject({
      vmId: 'vm/1',
    });
    const whole = 34 * MiB + 15;
    expect(progress.at(-1)).toEqual({ bytesDone: whole, bytesTotal: whole });

    const restored = await host.anotherRegistry().restoreSnapshot('before upgrade', 'vm-2');
    expect(restored).toMatchObject({ vmId: 'vm-2', stack: 'debian', sizeBytes: 32 * MiB, strategy: how });
    expect((await readFile(restored.path)).equals(disk)).toBe(true);
    expect(await readFile(restored.files[1] as string, 'utf8')).toBe('{"paused":true}');
    expect(await registry.cloneForVmWithSize('vm-2', 'debian', 32 * MiB)).toMatchObject({ reused: true });
    expect(await listed(host)).toMatchObject([{ name: 'before upgrade' }]);
    expect(await registry.removeSnapshot('before upgrade')).toBe(true);
    expect(await registry.removeSnapshot('before upgrade')).toBe(false);
    await registry.drain();
    expect(await listed(host)).toEqual([]);
  });
});

test('a removal that waited leaves the snapshot that was taken again meanwhile', async () => {
  const { host, memory } = await paused(inject('scratch'));
  const other = host.anotherRegistry();
  await other.snapshotSlot('vm/1', 'v1.2');
  const use = ManagedFolder.prototype.use;
  let exchanged = false;
  const spy = vi.spyOn(ManagedFolder.prototype, 'use').mockImplementation(async function (
    this: ManagedFolder,
    ...args
  ) {
    // When the call has looked at the snapshot, and before it removes it.
    if (!exchanged && this.path.endsWith('/snapshots')) {
      exchanged = true;
      expect(await other.removeSnapshot('v1.2')).toBe(true);
      await other.snapshotSlot('vm/1', 'v1.2', { with: [memory] });
    }
    return use.apply(this, args);
  });
  onTestFinished(() => spy.mockRestore());
  expect(await host.registry.removeSnapshot('v1.2')).toBe(false);
  expect(exchanged).toBe(true);
  expect((await host.registry.verifySnapshot('v1.2')).files).toHaveLength(2);
  expect(await host.registry.removeSnapshot('v1.2')).toBe(true);
});

test('in a folder of its own on another filesystem: by copy, holes kept', async () => {
  const elsewhere = await Host.in(filesystemNamed('ext4').path);
  const snapshotsDir = join(elsewhere.root, 'snapshots');
  const { host } = await paused(filesystemNamed('XFS').path, { snapshotsDir });
  const { path, strategies } = await host.registry.snapshotSlot('vm/1', 'daily');
  expect(path).toBe(join(snapshotsDir, 'daily'));
  expect(strategies).toEqual(['copy']);
  const [kept, image] = [await stat(join(path, 'rootfs.ext4')), await stat(host.slot('vm_1').image)];
  expect(kept.blocks).toBeLessThanOrEqual(image.blocks + 64);
  expect(await host.registry.restoreSnapshot('daily', 'copy')).toMatchObject({ strategy: 'copy' });
  expect(await staged(snapshotsDir)).toEqual([]);
});

test('what is not as it was is named: changed, cut off, missing, a link, a garbled manifest', async () => {
  const { host, memory } = await paused(inject('scratch'));
  const { registry } = host;
  const { path } = await registry.snapshotSlot('vm/1', 'snap', { with: [memory] });
  const kept = join(path, 'memory');
  const bytes = await readFile(kept);
  const put = async (contents: Buffer) => {
    await rm(kept, { force: true });
    await writeFile(kept, contents);
  };
  const wrong: [string, () => Promise<unknown>][] = [
    ['a changed byte', () => put(Buffer.concat([bytes.subarray(0, -1), Buffer.from('?')]))],
    ['a shorter file', () => put(bytes.subarray(0, 5))],
    ['none', () => rm(kept)],
    ['a link to the same bytes', () => symlink(memory, kept)],
    ['a folder', () => rm(kept).then(() => mkdir(kept))],
  ];
  for (const [, make] of wrong) {
    await make();
    const error = await rejection(registry.verifySnapshot('snap'), 'SNAPSHOT_CORRUPT');
    expect(error.path).toBe(kept);
    await rejection(registry.restoreSnapshot('snap', 'vm-2'), 'SNAPSHOT_CORRUPT');
  }
  await rm(kept, { recursive: true });
  await put(bytes);
  await registry.verifySnapshot('snap');
  const manifest = join(path, 'SHA256SUMS');
  const text = await readFile(manifest, 'utf8');
  const garbled = [
    '',
    'x',
    text.slice(0, -10),
    text.replace('"version":1', '"version":2'),
    text.replace('  memory', '  ../vm'),
    text.replace(/^.*\n/, ''),
  ];
  for (const contents of garbled) {
    await rm(manifest, { force: true });
    await writeFile(manifest, contents);
    expect((await rejection(registry.verifySnapshot('snap'), 'SNAPSHOT_CORRUPT')).path).toBe(manifest);
    const advice = expect.stringContaining('remove it by hand');
    expect((await rejection(registry.removeSnapshot('snap'), 'SNAPSHOT_CORRUPT')).message).toEqual(advice);
    expect((await rejection(registry.snapshotSlot('vm/1', 'snap'), 'SNAPSHOT_EXISTS')).message).toEqual(
      advice,
    );
  }
  expect(await listed(host)).toEqual([]);
  expect(await host.slotNames()).toEqual(['vm_1']);
});

test('the lost+found of an ext4 does not end the list of another user with an error', async ({ skip }) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(`${reason}, to become another user`);
  const { root, clonesDir, templateDir } = await Host.in();
  await chmod(root, 0o755);
  const snapshotsDir = join(root, 'snapshots');
  await mkdir(join(snapshotsDir, 'lost+found'), { recursive: true, mode: 0o755 });
  await chmod(join(snapshotsDir, 'lost+found'), 0o700);
  const { stdout } = await runChild(
    `const registry = new lib.RootfsRegistry(args);
     for await (const { name } of registry.snapshots()) console.log(name);
     console.log('done');`,
    { clonesDir, templateDir, snapshotsDir },
    { uid: 65534 },
  );
  expect(stdout).toBe('done\n');
});

test('refused before anything is made: names, doubles, what is no file, what is there', async () => {
  const { host, memory } = await paused(inject('scratch'));
  const { registry } = host;
  for (const name of ['', '.hidden', 'a/b', 'a\nb', 'a\\b', '..', 'x'.repeat(256), 'ä'.repeat(128)]) {
    await rejection(registry.snapshotSlot('vm/1', name), 'INVALID_SNAPSHOT_NAME');
    await rejection(registry.verifySnapshot(name), 'INVALID_SNAPSHOT_NAME');
  }
  for (const name of [Symbol('x'), Object.create(null)]) {
    await rejection(registry.snapshotSlot('vm/1', name as never), 'INVALID_SNAPSHOT_NAME');
    await rejection(registry.verifySnapshot(name as never), 'INVALID_SNAPSHOT_NAME');
    await rejection(registry.restoreSnapshot(name as never, 'vm'), 'INVALID_SNAPSHOT_NAME');
  }
  const folder = join(host.root, 'folder');
  await mkdir(folder);
  await writeFile(join(folder, 'memory'), '');
  await writeFile(join(folder, 'rootfs.ext4'), '');
  for (const others of [
    [memory, join(folder, 'memory')],
    [join(folder, 'rootfs.ext4')],
    [folder],
    ['/dev/zero'],
  ]) {
    await rejection(registry.snapshotSlot('vm/1', 'snap', { with: others }), 'INVALID_ARGUMENT');
  }
  await rejection(registry.snapshotSlot('vm/1', 'snap', { with: [join(folder, 'none')] }), 'ENOENT');
  const endless = join(folder, 'memory');
  await truncate(endless, 2 ** 41);
  await rejection(registry.snapshotSlot('vm/1', 'snap', { with: [endless] }), 'SOURCE_TOO_LARGE');
  await rejection(registry.snapshotSlot('vm/1', 'snap', { with: memory as never }), 'INVALID_ARGUMENT');
  await rejection(registry.snapshotSlot('nobody', 'snap'), 'SLOT_NOT_FOUND');
  await rejection(registry.restoreSnapshot('snap', 'vm-2'), 'SNAPSHOT_NOT_FOUND');
  await registry.snapshotSlot('vm/1', 'snap');
  await rejection(registry.snapshotSlot('vm/1', 'snap'), 'SNAPSHOT_EXISTS');
  await rejection(registry.restoreSnapshot('snap', 'vm/1'), 'SLOT_EXISTS');
  const snapshotsDir = join(host.clonesDir, '.microvm-rootfs', 'snapshots');
  expect((await readdir(snapshotsDir)).filter((name) => !name.startsWith('.'))).toEqual(['snap']);
  expect(await staged(snapshotsDir)).toEqual([]);
});

test('a name with a line separator is kept; more names than a manifest can hold are refused at once', async () => {
  const { host } = await paused(inject('scratch'));
  const { registry } = host;
  const odd = join(host.root, 'memory\u2028of\u2029vm');
  await writeFile(odd, 'm');
  await registry.snapshotSlot('vm/1', 'odd', { with: [odd] });
  expect((await registry.restoreSnapshot('odd', 'vm-2')).files).toHaveLength(1);
  expect((await listed(host)).map(({ name }) => name)).toEqual(['odd']);
  const many = Array.from({ length: 2600 }, (_, i) => join(host.root, `${i}`.padStart(196, 'x')));
  const { message } = await rejection(
    registry.snapshotSlot('vm/1', 'many', { with: many }),
    'INVALID_ARGUMENT',
  );
  expect(message).toContain('2601 files');
});

test('what the callback of one restore throws ends that one alone, and none is called after its end', async () => {
  const { host, memory } = await paused(inject('scratch'));
  const { registry } = host;
  await registry.snapshotSlot('vm/1', 'snap', { with: [memory] });
  await registry.close();
  const fresh = new RootfsRegistry(registry.config);
  const calls = { thrower: 0, patient: 0 };
  const onProgress = () => {
    calls.thrower++;
    throw new Error('mine');
  };
  const [thrower, silent, patient] = await Promise.allSettled([
    fresh.restoreSnapshot('snap', 'vm-2', { onProgress }),
    fresh.restoreSnapshot('snap', 'vm-3'),
    fresh.restoreSnapshot('snap', 'vm-4', { onProgress: () => calls.patient++ }),
  ]);
  expect(thrower).toMatchObject({ status: 'rejected', reason: { message: 'mine' } });
  expect([silent?.status, patient?.status]).toEqual(['fulfilled', 'fulfilled']);
  expect(calls.thrower).toBe(1);
  expect(calls.patient).toBeGreaterThan(1);
  await fresh.close();
});

test('a memory file that is written to meanwhile, and an abort: nothing is left', async () => {
  const { host, memory } = await paused(filesystemNamed('ext4').path);
  const file = await open(memory, 'r+');
  let writing = true;
  const writer = (async () => {
    for (let i = 0; writing; i++) await file.write(`${i}`, 0);
  })();
  await rejection(host.registry.snapshotSlot('vm/1', 'snap', { with: [memory] }), 'SOURCE_CHANGED');
  writing = false;
  await writer;
  await file.close();
  const controller = new AbortController();
  const onProgress = () => controller.abort();
  await rejection(
    host.registry.snapshotSlot('vm/1', 'snap', { signal: controller.signal, onProgress }),
    'ABORT_ERR',
  );
  expect(await listed(host)).toEqual([]);
  expect(await staged(join(host.clonesDir, '.microvm-rootfs', 'snapshots'))).toEqual([]);
});

test('while the copies are hashed, the slot is not in use any more', async () => {
  const host = await Host.in(filesystemNamed('XFS').path);
  const { registry } = host;
  await host.addExt4Template('debian', 64 * MiB);
  await registry.cloneForVm('vm-1', 'debian', { writable: true });
  let released: Promise<boolean> | undefined;
  const onProgress = () => {
    released ??= registry.release('vm-1');
  };
  const snapshot = await registry.snapshotSlot('vm-1', 'snap', { onProgress });
  expect(await released).toBe(true);
  expect(await registry.verifySnapshot(snapshot.name)).toMatchObject({ name: 'snap' });
});

test('of two that make one snapshot at once, one does', async () => {
  const { host } = await paused(inject('scratch'));
  const [a, b] = await Promise.allSettled([
    host.registry.snapshotSlot('vm/1', 'snap'),
    host.anotherRegistry().snapshotSlot('vm/1', 'snap'),
  ]);
  expect([a.status, b.status].sort()).toEqual(['fulfilled', 'rejected']);
  const { reason } = (a.status === 'rejected' ? a : b) as PromiseRejectedResult;
  expect(reason).toMatchObject({ code: 'SNAPSHOT_EXISTS' });
  await host.registry.verifySnapshot('snap');
});

test.each(['XFS', 'ext4'])(
  'on %s, endless files in snapshots keep no other slot waiting, and close() ends them',
  async (name) => {
    const { host, memory } = await paused(filesystemNamed(name).path);
    const { registry } = host;
    await registry.cloneForVm('other', 'debian', { writable: true });
    await truncate(memory, 2 ** 40);
    const hashes = new Promise<void>(whileHashing);
    const endless = Array.from({ length: 33 }, (_, i) =>
      registry.snapshotSlot('vm/1', `endless-${i}`, { with: [memory] }),
    );
    const ends = Promise.allSettled(endless);
    await hashes;
    await registry.exportTo('other', join(host.root, 'disk'));
    await registry.forkSlot('other', 'child', { refuseInUse: true });
    await registry.snapshotSlot('other', 'honest');
    await registry.verifySnapshot('honest');
    expect((await listed(host)).map((snapshot) => snapshot.name)).toEqual(['honest']);
    await registry.close();
    for (const end of await ends) expect(end).toMatchObject({ reason: { code: 'CLOSED' } });
  },
);
