// The folder of slots while a registry lives: taken away, replaced, mounted over, closed under calls that are under
// way.
import { execFileSync } from 'node:child_process';
import {
  chmod,
  mkdir,
  readdir,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { RootfsRegistry } from '../../src/index.js';
import { SnapshotRestorer } from '../../src/snapshots/snapshot-restorer.js';
import { type ChildOptions, exitOf, printed, runChild, startChild } from '../fixtures/child.js';
import { describeEachFilesystem, filesystemNamed } from '../fixtures/each-filesystem.js';
import { exists, sha256, sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, makeExt4Image, pattern } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';
import { whileHashing } from '../fixtures/while-hashing.js';

const BYTES = pattern(MiB);
const WRITABLE = { writable: true } as const;

function stateOf(host: Host): string {
  return join(host.clonesDir, '.microvm-rootfs');
}

async function sessions(host: Host): Promise<string[]> {
  const staging = join(stateOf(host), 'staging');
  return (await exists(staging)) ? readdir(staging) : [];
}

/** A registry that has done all that it does at first. */
async function warmHost(folder?: string): Promise<Host> {
  const host = await Host.in(folder);
  await host.addTemplate('debian', BYTES);
  await host.registry.cloneForVm('vm-0', 'debian', WRITABLE);
  await host.registry.drain();
  return host;
}

/** A host whose template takes a while to hash. It has a snapshot, and no registry is open. */
async function hostToHash(folder?: string): Promise<Host> {
  const host = await Host.in(folder);
  await host.placeTemplate('debian', async (path) => {
    await writeFile(path, BYTES);
    await truncate(path, 64 * MiB);
  });
  await host.registry.cloneForVm('vm-0', 'debian', WRITABLE);
  await host.registry.snapshotSlot('vm-0', 'snap');
  await host.registry.close();
  return host;
}

/** Removes what is known of templates and snapshots. */
async function forgetDigests(host: Host): Promise<void> {
  await rm(join(stateOf(host), 'digests'), { recursive: true, force: true });
}

async function openFilesOf(host: Host): Promise<string[]> {
  const fds = await readdir('/proc/self/fd');
  const open = await Promise.all(fds.map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')));
  return open.filter((path) => path.startsWith(host.root) || path.startsWith(host.templateDir));
}

describeEachFilesystem((filesystem) => {
  const READS: [string, (registry: RootfsRegistry) => Promise<unknown>][] = [
    ['verify', (registry) => registry.verify()],
    ['stack', (registry) => registry.stack('debian')],
    ['stacks', (registry) => registry.stacks()],
    ['a clone', (registry) => registry.cloneForVm('vm-1', 'debian', WRITABLE)],
    ['prewarm', (registry) => registry.prewarm('debian', { count: 1 })],
    ['a restore', (registry) => registry.restoreSnapshot('snap', 'vm-1')],
    ['prewarmSnapshot', (registry) => registry.prewarmSnapshot('snap', { count: 1 })],
    ['verifySnapshot', (registry) => registry.verifySnapshot('snap')],
  ];

  test('close() ends what reads whole files, and leaves none of them open', async () => {
    const host = await hostToHash(filesystem.path);
    for (const [what, read] of READS) {
      if (what !== 'verify') await forgetDigests(host);
      const registry = host.anotherRegistry();
      let leftOpen: Promise<string[]> | undefined;
      whileHashing(() => {
        leftOpen ??= registry.close().then(() => openFilesOf(host));
      });
      expect(await read(registry).catch(({ code }) => code), what).toBe('CLOSED');
      expect(await leftOpen, what).toEqual([]);
    }
  });

  test('close() waits until what the abort of a call has ended closes its files', async () => {
    const host = await hostToHash(filesystem.path);
    await forgetDigests(host);
    const registry = host.anotherRegistry();
    const controller = new AbortController();
    const { signal } = controller;
    const clone = registry.cloneForVm('vm-1', 'debian', { ...WRITABLE, signal });
    const restore = registry.restoreSnapshot('snap', 'vm-2', { signal });
    let hashed = 0;
    whileHashing(() => {
      if (++hashed === 2) controller.abort();
    });
    await Promise.all([rejection(clone, 'ABORT_ERR'), rejection(restore, 'ABORT_ERR')]);
    await registry.close();
    expect(await openFilesOf(host)).toEqual([]);
  });

  const TAKEN_AWAY: [string, (host: Host) => Promise<unknown>][] = [
    ['deleted', (host) => rm(host.clonesDir, { recursive: true })],
    ['moved away', (host) => rename(host.clonesDir, `${host.clonesDir}.away`)],
    [
      'replaced by an empty one',
      async (host) => {
        await rename(host.clonesDir, `${host.clonesDir}.away`);
        await mkdir(host.clonesDir);
      },
    ],
    ['without our own folder in it', (host) => rm(stateOf(host), { recursive: true })],
  ];

  test.each(TAKEN_AWAY)('%s: the next clone is whole, in the folder that has the name', async (_, take) => {
    const host = await warmHost(filesystem.path);
    await take(host);
    const clone = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    expect(clone).toMatchObject({ path: host.slot('vm-1').image, reused: false });
    expect(await sha256Of(host.slot('vm-1').image)).toBe(sha256(BYTES));
    expect(await host.stampOf('vm-1')).toBe(sha256(BYTES));
    await host.registry.drain();
    expect(await host.leftovers()).toEqual([]);
  });

  test.each(TAKEN_AWAY)('%s: so are the next cloneMany, prewarm and release', async (_, take) => {
    const host = await warmHost(filesystem.path);
    await take(host);
    const requests = ['vm-1', 'vm-2'].map((vmId) => ({ vmId, stack: 'debian', options: WRITABLE }));
    const settled = await host.registry.cloneMany(requests);
    expect(settled.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled']);
    await host.registry.prewarm('debian', { count: 1 });
    expect((await host.registry.cloneForVm('vm-3', 'debian', WRITABLE)).pooled).toBe(true);
    expect(await host.registry.release('vm-3')).toBe(true);
    const kept = (await host.slotNames()).filter((name) => name !== 'vm-0');
    expect(kept).toEqual(['vm-1', 'vm-2']);
  });

  test('taken away under a pool: what is left of the old folder is not handed out', async () => {
    const host = await warmHost(filesystem.path);
    await host.registry.prewarm('debian', { count: 4 });
    await rename(host.clonesDir, `${host.clonesDir}.away`);
    for (const id of ['vm-1', 'vm-2', 'vm-3']) {
      const clone = await host.registry.cloneForVm(id, 'debian', WRITABLE);
      expect(await sha256Of(clone.path)).toBe(sha256(BYTES));
    }
    expect(await host.slotNames()).toEqual(['vm-1', 'vm-2', 'vm-3']);
  });

  test('close() waits for what is under way, and leaves nothing of its session', async () => {
    const host = await warmHost(filesystem.path);
    const ids = Array.from({ length: 40 }, (_, i) => `vm-${i + 1}`);
    const calls = Promise.allSettled(ids.map((id) => host.registry.cloneForVm(id, 'debian', WRITABLE)));
    await host.registry.close();
    expect(await sessions(host)).toEqual([]);
    const settled = await calls;
    const codes = settled.map((call) => (call.status === 'rejected' ? call.reason.code : 'done'));
    expect(new Set(codes)).toEqual(new Set(['done']));
    for (const id of ids) expect(await sha256Of(host.slot(id).image)).toBe(sha256(BYTES));
  });

  test('close() waits for the clones of a cloneMany that is under way', async () => {
    const host = await warmHost(filesystem.path);
    const ids = Array.from({ length: 200 }, (_, i) => `vm-${i + 1}`);
    const call = host.registry.cloneMany(ids.map((vmId) => ({ vmId, stack: 'debian', options: WRITABLE })));
    await host.registry.close();
    const codes = (await call).map((r) => (r.status === 'rejected' ? r.reason.code : 'done'));
    expect(new Set(codes)).toEqual(new Set(['done']));
    expect(await host.slotNames()).toHaveLength(201);
    expect(await sessions(host)).toEqual([]);
  });

  test('close() waits for the restores of a restoreMany that is under way', async () => {
    const host = await warmHost(filesystem.path);
    await host.registry.snapshotSlot('vm-0', 'snap');
    const requests = Array.from({ length: 150 }, (_, i) => ({ snapshot: 'snap', vmId: `vm-${i + 1}` }));
    let running = 0;
    let most = 0;
    const restore = SnapshotRestorer.prototype.restore;
    const spy = vi.spyOn(SnapshotRestorer.prototype, 'restore').mockImplementation(async function (
      this: SnapshotRestorer,
      ...args
    ) {
      most = Math.max(most, ++running);
      return restore.apply(this, args).finally(() => running--);
    });
    onTestFinished(() => spy.mockRestore());
    const call = host.registry.restoreMany(requests);
    await host.registry.close();
    expect(running).toBe(0);
    expect(most).toBeGreaterThan(0);
    expect(most).toBeLessThan(requests.length / 2);
    const codes = (await call).map((r) => (r.status === 'rejected' ? r.reason.code : 'done'));
    expect(new Set(codes)).toEqual(new Set(['done']));
    expect(await sessions(host)).toEqual([]);
  });

  test('close() while the folder is being opened: nothing stays open or is made afterwards', async () => {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('debian', BYTES);
    // The template is known, so the first thing that a clone does is to open the folder.
    await host.registry.stack('debian');
    const calls = ['vm-1', 'vm-2'].map((id) => host.registry.cloneForVm(id, 'debian', WRITABLE));
    const settled = Promise.allSettled(calls);
    await host.registry.close();
    for (const call of await settled) if (call.status === 'rejected') expect(call.reason.code).toBe('CLOSED');
    await sleep(50);
    expect(await sessions(host)).toEqual([]);
  });
});

describe('close()', () => {
  test('waits for a cloneMany and a restoreMany that have to hash first', async () => {
    const host = await hostToHash();
    await forgetDigests(host);
    const registry = host.anotherRegistry();
    const cloned = registry.cloneMany([{ vmId: 'vm-1', stack: 'debian', options: WRITABLE }]);
    const restored = registry.restoreMany([{ snapshot: 'snap', vmId: 'vm-2' }]);
    await registry.close();
    expect(await openFilesOf(host)).toEqual([]);
    expect([...(await cloned), ...(await restored)]).toMatchObject([
      { status: 'fulfilled' },
      { status: 'fulfilled' },
    ]);
    expect(await host.slotNames()).toEqual(['vm-0', 'vm-1', 'vm-2']);
  });

  test('waits for a stack that is being published, whose digest is then known', async ({ skip }) => {
    const reason = lacks('mke2fs') ?? lacks('e2fsck');
    if (reason !== undefined) skip(reason);
    const host = await hostToHash();
    const image = join(host.root, 'image');
    await makeExt4Image(image, 64 * MiB);
    const registry = host.anotherRegistry();
    let closed: Promise<void> | undefined;
    whileHashing(() => {
      closed ??= registry.close();
    });
    const { sha256: published } = await registry.publishStack('new', image);
    await closed;
    let hashed = 0;
    whileHashing(() => hashed++);
    expect(await host.anotherRegistry().stack('new')).toMatchObject({ sha256: published });
    expect(hashed).toBe(0);
  });

  test('twice, also at once, is fine; every call that needs the folder is CLOSED afterwards', async () => {
    const host = await warmHost();
    await Promise.all([host.registry.close(), host.registry.close()]);
    await host.registry.close();
    await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), 'CLOSED');
    await rejection(host.registry.cloneForVm('vm-0', 'debian', WRITABLE), 'CLOSED');
    await rejection(host.registry.cloneForVmWithSize('vm-1', 'debian', 2 * MiB, WRITABLE), 'CLOSED');
    await rejection(host.registry.prewarm('debian', { count: 1 }), 'CLOSED');
    await rejection(host.registry.release('vm-0'), 'CLOSED');
    await rejection(host.registry.recover(), 'CLOSED');
    const calls: readonly ((registry: RootfsRegistry) => Promise<unknown>)[] = [
      (registry) => registry.removeStack('nothing'),
      (registry) => registry.sealedImages(),
      (registry) => registry.readySlots(),
      (registry) => registry.release('nothing'),
      (registry) => registry.gc({ keep: [] }),
      (registry) => registry.verify(),
      (registry) => registry.usage(),
      (registry) => registry.slots().next(),
      (registry) => registry.snapshots().next(),
      (registry) => registry.verifySnapshot('nothing'),
      (registry) => registry.removeSnapshot('nothing'),
      async (registry) => registry.cloneForVmSync('vm-1', 'debian', WRITABLE),
    ];
    for (const call of calls) await rejection(call(host.registry), 'CLOSED');
    const [one] = await host.registry.cloneMany([{ vmId: 'vm-1', stack: 'debian', options: WRITABLE }]);
    expect(one).toMatchObject({ status: 'rejected', reason: { code: 'CLOSED' } });
    expect(await sessions(host)).toEqual([]);
    expect(await host.slotNames()).toEqual(['vm-0']);
  });

  test('is fine before anything was done, and makes nothing', async () => {
    const host = await Host.in();
    await host.registry.close();
    expect(await exists(host.clonesDir)).toBe(false);
  });

  test('tells with an error of ours what it could not remove', async ({ skip }) => {
    const reason = filesystemNamed('ext4').missing ?? lacksRoot() ?? lacks('chattr');
    if (reason !== undefined) skip(reason);
    const host = await warmHost(filesystemNamed('ext4').path);
    await host.registry.close();
    const { stdout } = await runChild(
      `const { execFileSync } = require('child_process');
       const { readdirSync, writeFileSync } = require('fs');
       const registry = new lib.RootfsRegistry(args);
       await registry.cloneForVm('vm-1', 'debian', { writable: true });
       await registry.drain();
       const staging = args.clonesDir + '/.microvm-rootfs/staging/';
       const stubborn = staging + readdirSync(staging)[0] + '/stubborn';
       writeFileSync(stubborn, '');
       execFileSync('chattr', ['+i', stubborn]);
       await registry.close().catch((error) =>
         console.log(error instanceof lib.RootfsError, error.code, error.path === stubborn));
       execFileSync('chattr', ['-i', stubborn]);`,
      { templateDir: host.templateDir, clonesDir: host.clonesDir },
    );
    expect(stdout).toBe('true EPERM true\n');
  });

  test('lets go of all descriptors', async () => {
    const open = async () => (await readdir('/proc/self/fd')).length;
    const host = await warmHost();
    const before = await open();
    const registries = Array.from({ length: 10 }, () => host.anotherRegistry());
    for (const [i, registry] of registries.entries())
      await registry.cloneForVm(`other-${i}`, 'debian', WRITABLE);
    await Promise.all(registries.map((registry) => registry.close()));
    expect(await open()).toBeLessThanOrEqual(before);
  });
});

test.each([
  ['another file system was mounted over it', 'mount'],
  ['what was mounted over it is gone', 'unmount'],
])('%s: the next clone is in what lies there', async (_, what) => {
  if (lacksRoot() !== undefined) return;
  const host = await warmHost();
  const mount = () => execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', host.clonesDir]);
  const unmount = () => execFileSync('umount', ['--lazy', host.clonesDir]);
  mount();
  try {
    await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    expect(await host.slotNames()).toEqual(['vm-1']);
    if (what === 'unmount') {
      unmount();
      await host.registry.cloneForVm('vm-2', 'debian', WRITABLE);
      expect(await host.slotNames()).toEqual(['vm-0', 'vm-2']);
    }
  } finally {
    if (what === 'mount') unmount();
  }
});

test('a file or a link to nothing in its place is refused with words; the call after it is gone works', async () => {
  const host = await warmHost();
  await rename(host.clonesDir, `${host.clonesDir}.away`);
  await writeFile(host.clonesDir, 'not a folder');
  await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), 'CLONES_DIR_INVALID');
  await rm(host.clonesDir);
  await symlink(`${host.clonesDir}.nowhere`, host.clonesDir);
  await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), ['CLONES_DIR_INVALID', 'ENOENT']);
  await rm(host.clonesDir);
  await rename(`${host.clonesDir}.away`, host.clonesDir);
  expect((await host.registry.cloneForVm('vm-0', 'debian', WRITABLE)).reused).toBe(true);
  expect((await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).reused).toBe(false);
});

test('our own folder that others may enter, as restored without its mode, is closed to them again', async () => {
  const host = await warmHost();
  await host.registry.close();
  await chmod(stateOf(host), 0o755);
  const { templateDir, clonesDir } = host;
  const later = new RootfsRegistry({ templateDir, clonesDir });
  await later.cloneForVm('vm-1', 'debian', WRITABLE);
  await later.close();
  expect((await stat(stateOf(host))).mode & 0o777).toBe(0o700);
});

describe('sealing beside other processes', () => {
  const STRACE = '/usr/bin/strace';
  const CLONE = `
    const registry = new lib.RootfsRegistry(args);
    await registry.cloneForVm('small', 'small', { writable: true });
    await registry.stack('debian');
    console.log('ready');
    await new Promise((resolve) => process.stdin.once('data', resolve));
    await registry.cloneForVm('vm-' + process.pid, 'debian', { writable: true });
    await registry.close();
    console.log('done');
    process.exit();`;

  /** On XFS, since nothing is sealed without reflink; with a small template that is sealed already. */
  async function sealingHost(
    skip: (why?: string) => void,
    elsewhere?: Host,
  ): Promise<[Host, string, object]> {
    const xfs = filesystemNamed('XFS');
    if (xfs.missing !== undefined) skip(xfs.missing);
    if (!(await exists(STRACE))) skip('needs strace');
    const host = await Host.in(xfs.path, elsewhere && { templateDir: elsewhere.templateDir });
    await (elsewhere ?? host).addTemplate('small', 'small');
    await (elsewhere ?? host).addTemplate('debian', BYTES);
    await host.registry.cloneForVm('vm-0', 'small', WRITABLE);
    const image = join(stateOf(host), 'sealed', `${sha256(BYTES)}-${BYTES.length}`, 'rootfs.ext4');
    return [host, image, { templateDir: host.templateDir, clonesDir: host.clonesDir }];
  }

  function strace(host: Host, inject: string, ...more: string[]): ChildOptions {
    const log = join(host.root, 'strace.log');
    const under = [STRACE, '-f', '-qqq', '-o', log, ...more, '-e', `inject=${inject}`];
    return { under, env: { UV_THREADPOOL_SIZE: '1' } };
  }

  test('one that saw none does not throw away what another has published meanwhile', async ({ skip }) => {
    const [host, image, config] = await sealingHost(skip);
    // Each rename in the folder of sealed images waits, so that the other process comes in between.
    const delay = 'renameat2:delay_enter=400000';
    const slow = startChild(CLONE, config, strace(host, delay, '-P', join(stateOf(host), 'sealed')));
    await printed(slow, 'ready');
    const end = printed(slow, 'done');
    slow.stdin?.write('go');
    await sleep(150);
    await host.registry.stack('debian');
    await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    const before = (await stat(image)).ino;
    await end;
    expect((await stat(image)).ino).toBe(before);
  });

  test.for(['pwrite64', 'fdatasync', 'fsync', 'renameat2'])(
    'killed at %s: the next process seals, and nothing is left of the other',
    async (call, { skip }) => {
      // From another file system, so that it has to be copied.
      const elsewhere = await Host.in();
      const [host, image, config] = await sealingHost(skip, elsewhere);
      let killed = 0;
      for (let when = 1; when <= 4; when++) {
        await rm(dirname(image), { recursive: true, force: true });
        const child = startChild(CLONE, config, strace(host, `${call}:signal=SIGKILL:when=${when}`));
        const exit = exitOf(child);
        child.stdin?.write('go');
        if ((await exit).signal === 'SIGKILL') killed++;
        const next = host.anotherRegistry();
        const clone = await next.cloneForVm(`next-${when}`, 'debian', WRITABLE);
        expect(await sha256Of(clone.path)).toBe(sha256(BYTES));
        expect(await sha256Of(image)).toBe(sha256(BYTES));
        await next.recover();
        await next.close();
      }
      expect(killed).toBeGreaterThan(0);
      expect(await host.leftovers()).toEqual([]);
    },
  );
});

test.for([
  ['ENOLCK', 'flock'],
  ['EIO', 'pwrite64'],
] as const)('opens that fail with %s of %s leave nothing in staging', async ([errno, call], { skip }) => {
  const missing = lacks('strace');
  if (missing !== undefined) skip(missing);
  const host = await warmHost();
  await host.registry.close();
  const { templateDir, clonesDir } = host;
  const log = join(host.root, 'strace.log');
  const codes = await runChild(
    `const registry = new lib.RootfsRegistry(args);
     for (let i = 0; i < 3; i++) await registry.recover().catch((error) => console.log(error.code));
     await registry.close();`,
    { templateDir, clonesDir },
    { under: ['strace', '-f', '-qqq', '-o', log, '-e', `inject=${call}:error=${errno}`] },
  );
  expect(codes).toMatchObject({ code: 0, stdout: `${errno}\n`.repeat(3) });
  expect(await sessions(host)).toEqual([]);
});

test('recover() over and over beside processes that clone and release: nothing that lives is taken', async () => {
  const host = await warmHost();
  const config = { templateDir: host.templateDir, clonesDir: host.clonesDir };
  const children = [1, 2].map((child) =>
    runChild(
      `const registry = new lib.RootfsRegistry(args.config);
       for (let i = 0; i < 60; i++) {
         const id = 'child-' + args.child + '-' + i;
         await registry.cloneForVm(id, 'debian', { writable: true });
         if (i % 3 === 0) await registry.release(id);
       }
       await registry.close();`,
      { child, config },
    ),
  );
  const ended = Promise.all(children);
  let working = true;
  void ended.then(() => {
    working = false;
  });
  while (working) {
    const report = await host.registry.recover();
    expect(report).toMatchObject({ tornSlots: [], tornInUse: [], settledSlots: [], sealedRemoved: 0 });
  }
  for (const exit of await ended) expect(exit).toMatchObject({ code: 0, stderr: '' });
  expect(await host.slotNames()).toHaveLength(81);
  await host.registry.recover();
  expect(await host.registry.recover()).toMatchObject({ stagingRemoved: 0, trashRemoved: 0, tornSlots: [] });
  expect(await host.leftovers()).toEqual([]);
});
