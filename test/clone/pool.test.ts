// Ready slots: handed out by a rename, shared between processes, never of a template that has changed.
import { execFileSync } from 'node:child_process';
import {
  chmod,
  chown,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, inject, onTestFinished, test, vi } from 'vitest';
import { native } from '../../src/addon/native.js';
import type { Template } from '../../src/catalog/template.js';
import { type PoolKey, readyName } from '../../src/clone/pool-files.js';
import { runChild } from '../fixtures/child.js';
import { cloneParts } from '../fixtures/clone-parts.js';
import { describeEachFilesystem, filesystemNamed } from '../fixtures/each-filesystem.js';
import { exists, sha256, sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { faultsOf, MiB, pattern } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

const OLD = pattern(MiB, 1);
const NEW = pattern(MiB, 2);
const WRITABLE = { writable: true } as const;

async function prewarmed(folder: string, count: number): Promise<Host> {
  const host = await Host.in(folder);
  await host.addTemplate('debian', OLD);
  await host.registry.prewarm('debian', { count });
  return host;
}

async function readySlots(host: Host): Promise<string[]> {
  const names = await readdir(join(host.clonesDir, '.microvm-rootfs/pool'));
  return names.filter((name) => !name.endsWith('.json'));
}

describeEachFilesystem((filesystem) => {
  test('a matching clone takes a ready slot, whole and with its stamp', async () => {
    const host = await prewarmed(filesystem.path, 2);
    const clone = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    expect(clone).toMatchObject({ pooled: true, reused: false, sharesTemplateInode: false, sizeBytes: MiB });
    expect(await sha256Of(clone.path)).toBe(sha256(OLD));
    expect(await host.stampOf('vm-1')).toBe(clone.sourceSha256);
  });

  test('an id that sanitising changed gets its own name into the slot', async () => {
    const host = await prewarmed(filesystem.path, 1);
    const clone = await host.registry.cloneForVm('a/b', 'debian', WRITABLE);
    expect(clone.pooled).toBe(true);
    expect(await readFile(host.slot('a_b').rawId, 'utf8')).toBe('a/b');
    await rejection(host.registry.cloneForVm('a_b', 'debian', WRITABLE), 'VM_ID_COLLISION');
  });

  test('another mode, size or durable is not served from the pool', async () => {
    const host = await prewarmed(filesystem.path, 1);
    const mode = await host.registry.cloneForVm('vm-1', 'debian', { ...WRITABLE, mode: 0o640 });
    const durable = await host.registry.cloneForVm('vm-2', 'debian', { ...WRITABLE, durable: true });
    expect([mode.pooled, durable.pooled]).toEqual([false, false]);
    expect(await readySlots(host)).toHaveLength(1);
  });

  test('a count of 0 discards those of all processes, and only of that kind', async () => {
    const host = await prewarmed(filesystem.path, 2);
    await host.registry.prewarm('debian', { count: 1, mode: 0o640 });
    const other = host.anotherRegistry();
    await other.prewarm('debian', { count: 0 });
    expect(await readySlots(host)).toHaveLength(1);
    // Of which the first process still has the names.
    const clone = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    expect(clone).toMatchObject({ pooled: false, reused: false });
    await other.close();
  });

  test('without a count the template is sealed, or packed, and the pool stays as it is', async () => {
    const host = await prewarmed(filesystem.path, 2);
    await host.registry.prewarm('debian');
    await host.registry.prewarm('debian', { pack: true });
    expect(await readySlots(host)).toHaveLength(2);
    for (const id of ['vm-1', 'vm-2']) await host.registry.cloneForVm(id, 'debian', WRITABLE);
    await host.registry.drain();
    expect(await readySlots(host)).toHaveLength(2);
    const error = await rejection(host.registry.prewarm('debian', { count: -1 }), 'INVALID_ARGUMENT');
    expect(error.message).toBe('count must be an integer of at least 0, got -1');
  });

  const CHANGES: [string, (path: string) => Promise<void>][] = [
    ['the owner of the image', (path) => chown(join(path, 'rootfs.ext4'), 1234, 5678)],
    ['its mode', (path) => chmod(join(path, 'rootfs.ext4'), 0o644)],
    ['the owner of the folder', (path) => chown(path, 1234, 5678)],
    ['the mode of the folder', (path) => chmod(path, 0o700)],
  ];
  test.each(CHANGES)('somebody changed %s while no process lived: made anew', async (_, change) => {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('debian', OLD);
    const kinds = [{}, { owner: { uid: 1000, gid: 1001 }, mode: 0o640 }];
    for (const kind of kinds) await host.registry.prewarm('debian', { count: 1, ...kind });
    await host.registry.close();
    for (const name of await readySlots(host)) await change(readyPath(host, name));
    const next = host.anotherRegistry();
    for (const kind of kinds) {
      await next.prewarm('debian', { count: 1, ...kind });
      const { path, pooled } = await next.cloneForVm(`vm-${kind.mode}`, 'debian', { ...WRITABLE, ...kind });
      const { uid, gid, mode } = await stat(path);
      const folder = await stat(dirname(path));
      expect({ pooled, uid, gid, mode: mode & 0o777, folder: [folder.uid, folder.mode & 0o777] }).toEqual({
        pooled: true,
        ...(kind.owner ?? { uid: process.getuid?.(), gid: process.getgid?.() }),
        mode: kind.mode ?? 0o600,
        folder: [process.getuid?.(), 0o755],
      });
    }
  });

  test('the next process finds them as they were made, of whatever owner and mode', async () => {
    const host = await Host.in(filesystem.path);
    await host.addExt4Template('debian', 16 * MiB);
    // The group of what is made in it is the folder's.
    await host.registry.cloneForVm('vm-0', 'debian', WRITABLE);
    await chown(join(host.clonesDir, '.microvm-rootfs/staging'), 0, 1234);
    await chmod(join(host.clonesDir, '.microvm-rootfs/staging'), 0o2700);
    await host.registry.close();
    const kinds = [
      {},
      { mode: 0o444 },
      { owner: { uid: 1000, gid: 1001 } },
      { sizeBytes: 32 * MiB, mode: 0o660 },
    ];
    const first = host.anotherRegistry();
    for (const kind of kinds) await first.prewarm('debian', { count: 1, ...kind });
    await first.close();
    const ready = await readySlots(host);
    const next = host.anotherRegistry();
    for (const kind of kinds) await next.prewarm('debian', { count: 1, ...kind });
    expect(await readySlots(host)).toEqual(ready);
  });

  test('it is filled again behind the clones, and no more after close', async () => {
    const host = await prewarmed(filesystem.path, 4);
    for (const id of ['vm-1', 'vm-2', 'vm-3']) await host.registry.cloneForVm(id, 'debian', WRITABLE);
    await host.registry.drain();
    expect(await readySlots(host)).toHaveLength(4);
    await host.registry.close();
    await rejection(host.registry.cloneForVm('vm-4', 'debian', WRITABLE), 'CLOSED');
  });

  test('of a template that was replaced none is handed out, and new ones are made', async () => {
    const host = await prewarmed(filesystem.path, 3);
    await host.addTemplate('debian', NEW);
    const clone = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    expect(await sha256Of(clone.path)).toBe(sha256(NEW));
    expect(clone.sourceSha256).toBe(sha256(NEW));
    await host.registry.drain();
    const ready = await readySlots(host);
    // The clone may have taken one of the new ones already, and two of three are enough not to fill again.
    expect(ready.length).toBeGreaterThanOrEqual(2);
    expect(ready.every((name) => name.startsWith(sha256(NEW)))).toBe(true);
  });

  test('the next process uses what is there, but not what a power cut left short', async () => {
    const host = await prewarmed(filesystem.path, 3);
    await host.registry.close();
    const [short] = (await readySlots(host)) as [string];
    await truncate(join(host.clonesDir, '.microvm-rootfs/pool', short, 'rootfs.ext4'), 100);
    const next = host.anotherRegistry();
    await next.prewarm('debian', { count: 3 });
    const ready = await readySlots(host);
    expect(ready).toHaveLength(3);
    expect(ready).not.toContain(short);
    for (const id of ['vm-1', 'vm-2', 'vm-3']) {
      expect((await stat((await next.cloneForVm(id, 'debian', WRITABLE)).path)).size).toBe(MiB);
    }
  });

  test('two registries on one pool: no slot is handed out twice', async () => {
    const host = await prewarmed(filesystem.path, 8);
    const other = host.anotherRegistry();
    await other.prewarm('debian', { count: 8 });
    const ids = Array.from({ length: 24 }, (_, i) => `vm-${i}`);
    const clones = await Promise.all(
      ids.map((id, i) => (i % 2 === 0 ? host.registry : other).cloneForVm(id, 'debian', WRITABLE)),
    );
    const inodes = await Promise.all(clones.map(async ({ path }) => (await stat(path)).ino));
    expect(new Set(inodes).size).toBe(ids.length);
    expect(await host.slotNames()).toEqual([...ids].sort());
  });

  test('owner, mode and size must be the same, and are what the slot then has', async ({ skip }) => {
    const missing = lacksRoot();
    if (missing !== undefined) skip(missing);
    const host = await Host.in(filesystem.path);
    await host.addExt4Template('debian', 16 * MiB);
    const dress = { owner: { uid: 12, gid: 34 }, mode: 0o640, sizeBytes: 32 * MiB };
    await host.registry.prewarm('debian', { count: 4, ...dress });
    const others = [
      { ...dress, owner: { uid: 12, gid: 35 } },
      { ...dress, mode: 0o600 },
      { ...dress, sizeBytes: 16 * MiB },
      { owner: dress.owner, sizeBytes: 32 * MiB },
    ];
    for (const [i, other] of others.entries()) {
      const clone = await host.registry.cloneForVm(`other-${i}`, 'debian', { ...WRITABLE, ...other });
      expect(clone.pooled).toBe(false);
    }
    const clone = await host.registry.cloneForVm('vm-1', 'debian', { ...WRITABLE, ...dress });
    expect(clone).toMatchObject({ pooled: true, sizeBytes: 32 * MiB });
    const { uid, gid, mode, size } = await stat(clone.path);
    expect([uid, gid, mode & 0o777, size]).toEqual([12, 34, 0o640, 32 * MiB]);
    expect(await readFile(host.slot('vm-1').sizeStamp, 'utf8')).toBe(`${32 * MiB}`);
    expect(await faultsOf(clone.path)).toBe('');
  });

  test('a sized cloneMany takes each ready slot that it asks for, and loses none', async () => {
    const host = await Host.in(filesystem.path);
    await host.addExt4Template('debian', 16 * MiB);
    await host.registry.prewarm('debian', { count: 4, sizeBytes: 32 * MiB });
    const options = { ...WRITABLE, sizeBytes: 32 * MiB };
    for (const vmId of ['vm-1', 'vm-2']) {
      const settled = await host.registry.cloneMany([{ vmId, stack: 'debian', options }]);
      expect(settled[0]).toMatchObject({ status: 'fulfilled', value: { pooled: true } });
    }
    await host.registry.drain();
    expect(await readySlots(host)).toHaveLength(2);
  });

  test('not filled again before the low mark', async () => {
    const host = await prewarmed(filesystem.path, 4);
    for (const id of ['vm-1', 'vm-2']) await host.registry.cloneForVm(id, 'debian', WRITABLE);
    await host.registry.drain();
    expect(await readySlots(host)).toHaveLength(2);
  });

  test('what the next process finds with an empty stamp, or without its image, it throws away', async () => {
    const host = await prewarmed(filesystem.path, 3);
    await host.registry.close();
    const [first, second] = (await readySlots(host)).map((name) => readyPath(host, name)) as [string, string];
    await truncate(join(first, 'rootfs.ext4.sha256'), 0);
    await rm(join(second, 'rootfs.ext4'));
    const next = host.anotherRegistry();
    await next.prewarm('debian', { count: 3 });
    expect([await exists(first), await exists(second)]).toEqual([false, false]);
    for (const id of ['vm-1', 'vm-2', 'vm-3']) {
      const clone = await next.cloneForVm(id, 'debian', WRITABLE);
      expect(clone.pooled).toBe(true);
      expect(await sha256Of(clone.path)).toBe(sha256(OLD));
      expect(await host.stampOf(id)).toBe(sha256(OLD));
    }
  });

  test('what was taken away behind our back is no failure: the clone is made', async () => {
    const host = await prewarmed(filesystem.path, 2);
    for (const name of await readySlots(host)) await rename(readyPath(host, name), join(host.root, name));
    const clone = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    expect(clone).toMatchObject({ pooled: false, reused: false });
    expect(await sha256Of(clone.path)).toBe(sha256(OLD));
  });
});

function readyPath(host: Host, name: string): string {
  return join(host.clonesDir, '.microvm-rootfs/pool', name);
}

test('ready slots of a template that was replaced while no process lived are swept by recover()', async () => {
  const host = await prewarmed(inject('scratch'), 2);
  await host.registry.close();
  await host.addTemplate('debian', NEW);
  const next = host.anotherRegistry();
  await next.prewarm('debian', { count: 1 });
  expect(await next.recover()).toMatchObject({ pooledRemoved: 2 });
  const ready = await readySlots(host);
  expect(ready.filter((name) => name.startsWith(sha256(OLD)))).toEqual([]);
  expect(ready.filter((name) => name.startsWith(sha256(NEW)))).toHaveLength(1);
});

test('a ready slot that is not whole is thrown away, and its space comes back', async () => {
  const host = await prewarmed(inject('scratch'), 2);
  await host.registry.close();
  const [first = ''] = await readySlots(host);
  await truncate(join(host.clonesDir, '.microvm-rootfs/pool', first, 'rootfs.ext4.sha256'), 0);
  const next = host.anotherRegistry();
  await next.prewarm('debian', { count: 2 });
  await next.drain();
  expect(await readySlots(host)).not.toContain(first);
  expect(await host.leftovers()).toEqual([]);
});

test('two processes share one pool, and no slot is handed out twice', async () => {
  const host = await prewarmed(inject('scratch'), 20);
  const config = { templateDir: host.templateDir, clonesDir: host.clonesDir };
  const children = ['a', 'b'].map((child) =>
    runChild(
      `const registry = new lib.RootfsRegistry(args.config);
       await registry.prewarm('debian', { count: 10 });
       let pooled = 0;
       for (let i = 0; i < 30; i++) {
         const clone = await registry.cloneForVm(args.child + i, 'debian', { writable: true });
         if (clone.pooled) pooled++;
       }
       await registry.close();
       console.log(pooled > 0);`,
      { child, config },
    ),
  );
  for (const exit of await Promise.all(children))
    expect(exit).toMatchObject({ code: 0, stdout: 'true\n', stderr: '' });
  const ids = ['a', 'b'].flatMap((child) => Array.from({ length: 30 }, (_, i) => `${child}${i}`));
  expect(await host.slotNames()).toEqual(ids.sort());
  for (const id of ids) expect(await sha256Of(host.slot(id).image)).toBe(sha256(OLD));
});

test('close() ends a filling that is under way', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', OLD);
  await host.registry.prewarm('debian', { count: 0 });
  const filling = host.registry.prewarm('debian', { count: 500 }).catch(() => {});
  await sleep(20);
  await host.registry.close();
  await filling;
  const there = await readySlots(host);
  expect(there.length).toBeLessThan(500);
  await sleep(30);
  expect(await readySlots(host)).toEqual(there);
});

test('the same bytes published again: sealed images and ready slots stay', async ({ skip }) => {
  const xfs = filesystemNamed('XFS');
  if (xfs.missing !== undefined) skip(xfs.missing);
  const host = await Host.in(xfs.path);
  const source = await host.addExt4Template('source', 16 * MiB);
  const publish = () => host.registry.publishStack('debian', source, { replace: true });
  await publish();
  await host.registry.prewarm('debian', { count: 3, sizeBytes: 32 * MiB });
  await publish();
  await host.registry.cloneForVm('vm-1', 'debian', { ...WRITABLE, sizeBytes: 32 * MiB });
  for (const registry of [host.registry, host.anotherRegistry()])
    expect(await registry.recover()).toMatchObject({ sealedRemoved: 0, pooledRemoved: 0 });
  expect(await host.registry.sealedImages()).toHaveLength(2);
  expect(await readySlots(host)).toHaveLength(2);
  // Not when there are other bytes, which nobody has read.
  await host.addExt4Template('debian', 17 * MiB);
  expect(await host.anotherRegistry().recover()).toMatchObject({ sealedRemoved: 2, pooledRemoved: 2 });
});

test('two stacks of the same bytes each keep their pool when one of them is replaced', async () => {
  const host = await Host.in();
  for (const stack of ['one', 'two']) {
    await host.addTemplate(stack, OLD);
    await host.registry.prewarm(stack, { count: 2 });
  }
  await host.addTemplate('one', NEW);
  await host.registry.cloneForVm('vm-1', 'one', WRITABLE);
  await host.registry.drain();
  expect((await host.registry.cloneForVm('vm-2', 'one', WRITABLE)).pooled).toBe(true);
  expect((await host.registry.cloneForVm('vm-3', 'two', WRITABLE)).pooled).toBe(true);
});

test('a template whose change is first seen by stack(), or that is gone, has no ready slots of the old bytes left', async () => {
  const host = await prewarmed(inject('scratch'), 2);
  await host.addTemplate('debian', NEW);
  await host.registry.stack('debian');
  await host.registry.drain();
  const renewed = await readySlots(host);
  expect(renewed).toHaveLength(2);
  expect(renewed.every((name) => name.startsWith(sha256(NEW)))).toBe(true);
  await rm(host.template('debian'));
  expect(await host.registry.stacks()).toEqual([]);
  expect(await host.registry.stack('debian')).toBeUndefined();
  await host.registry.drain();
  expect(await readySlots(host)).toEqual([]);
});

test('a stack that goes and comes back has its pool again', async () => {
  const host = await prewarmed(inject('scratch'), 2);
  await rm(host.template('debian'));
  await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), 'STACK_NOT_FOUND');
  await host.registry.drain();
  await host.addTemplate('debian', NEW);
  expect(await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).toMatchObject({ pooled: false });
  await host.registry.drain();
  expect(await readySlots(host)).toHaveLength(2);
  expect(await host.registry.cloneForVm('vm-2', 'debian', WRITABLE)).toMatchObject({ pooled: true });
});

test('a pool whose renewal fails is renewed by the next clone, once for each template', async () => {
  const host = await Host.in(inject('scratch'));
  const size = { sizeBytes: 24 * MiB };
  await host.addExt4Template('debian', 16 * MiB);
  await host.registry.prewarm('debian', { count: 2, ...size });
  const warnings: string[] = [];
  const listen = ({ message }: Error) => warnings.push(message);
  process.on('warning', listen);
  onTestFinished(() => void process.off('warning', listen));
  // Larger than what was asked for.
  await host.addExt4Template('debian', 32 * MiB);
  for (let i = 0; i < 5; i++) {
    await host.registry.cloneForVm(`vm-${i}`, 'debian', WRITABLE);
    await host.registry.drain();
  }
  expect(warnings.length).toBeLessThanOrEqual(2);
  expect(await readySlots(host)).toEqual([]);
  await host.addExt4Template('debian', 16 * MiB);
  await host.registry.cloneForVm('vm-5', 'debian', WRITABLE);
  await host.registry.drain();
  const clone = await host.registry.cloneForVm('vm-6', 'debian', { ...WRITABLE, ...size });
  expect(clone).toMatchObject({ pooled: true, ...size });
});

test('a ready slot that its clone could not take is there for the next', async () => {
  const host = await prewarmed(inject('scratch'), 1);
  await mkdir(host.template('other'), { recursive: true });
  const clones = join(host.clonesDir, 'vm-1');
  await mkdir(clones);
  await writeFile(join(clones, 'foreign'), '');
  for (let i = 0; i < 3; i++) {
    await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), 'SLOT_INVALID');
  }
  expect(await host.registry.cloneForVm('vm-2', 'debian', WRITABLE)).toMatchObject({ pooled: true });
});

test('one too many, as when a clone gave another back meanwhile, is thrown away with its space', async () => {
  const host = await Host.in(inject('scratch'));
  await host.addTemplate('debian', OLD);
  const { background, folder, pool, templates } = cloneParts(host);
  const template = (await templates.look(host.template('debian'), undefined)) as Template;
  const key = { template, grownTo: undefined, owner: undefined, mode: undefined };
  const clonesPool = join(folder.statePath, 'pool');
  let made = 0;
  let beforeEnd = () => {};
  const make = async (_: PoolKey, prefix: string) => {
    const name = readyName(prefix, 'reflink', `1-${made++}`);
    await mkdir(join(clonesPool, name));
    beforeEnd();
    return name;
  };
  await pool.keep(key, { id: '', count: 1, make, renew: async () => {} }, undefined);
  const taken = pool.take(key) as string;
  beforeEnd = () => pool.giveBack(key, taken);
  await background.drain();
  await folder.drain();
  expect(made).toBe(2);
  expect(await readySlots(host)).toEqual([taken]);
  expect(await readdir(join(folder.statePath, 'trash'))).toEqual([]);
});

test('how a ready slot was made is told, also without sealed images', async () => {
  const host = await Host.in(inject('scratch'), { sealing: 'off' });
  await host.addTemplate('debian', OLD);
  await host.registry.prewarm('debian', { count: 1 });
  const pooled = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  const plain = await host.registry.cloneForVm('vm-2', 'debian', { ...WRITABLE, mode: 0o640 });
  expect([pooled.pooled, plain.pooled]).toEqual([true, false]);
  expect(pooled.strategy).toBe(plain.strategy);
});

test('a prewarm that was cut off by close() says so', async () => {
  const host = await prewarmed(inject('scratch'), 1);
  const filling = rejection(host.registry.prewarm('debian', { count: 100_000 }), 'CLOSED');
  await sleep(20);
  await host.registry.close();
  await filling;
});

test('after a prewarm that was aborted the pool is kept as before', async () => {
  const host = await prewarmed(inject('scratch'), 2);
  const signal = AbortSignal.timeout(50);
  await rejection(host.registry.prewarm('debian', { count: 100_000, signal }), 'ABORT_ERR');
  const made = (await readySlots(host)).length;
  for (let i = 0; i < 3; i++) await host.registry.cloneForVm(`vm-${i}`, 'debian', WRITABLE);
  await host.registry.drain();
  expect((await readySlots(host)).length).toBeLessThanOrEqual(made);
});

test.each(['stack', 'snapshot'])('an abort ends the copy of a ready slot: prewarm of a %s', async (of) => {
  const host = await Host.in();
  await host.addTemplate('debian', OLD);
  const { registry } = host;
  await registry.cloneForVm('vm-1', 'debian', WRITABLE);
  await registry.snapshotSlot('vm-1', 'warm');
  const controller = new AbortController();
  const { copyStep } = native();
  const copied = vi.spyOn(native(), 'copyStep').mockImplementation((...given) => {
    controller.abort();
    return copyStep(...given);
  });
  onTestFinished(() => copied.mockRestore());
  const options = { count: 1, signal: controller.signal };
  await rejection(
    of === 'stack' ? registry.prewarm('debian', options) : registry.prewarmSnapshot('warm', options),
    'ABORT_ERR',
  );
  expect(copied).toHaveBeenCalledOnce();
  expect(await readySlots(host)).toEqual([]);
});

test('an aborted prewarm leaves what was asked for meanwhile', async () => {
  const host = await prewarmed(inject('scratch'), 1);
  const { registry } = host;
  await registry.prewarm('debian', { count: 1, mode: 0o600 });
  const aborting = new AbortController();
  const filling = registry.prewarm('debian', { count: 100_000, signal: aborting.signal });
  const aborted = rejection(filling, 'ABORT_ERR');
  await registry.prewarm('debian', { count: 1, mode: 0o640 });
  await registry.prewarm('debian', { count: 0, mode: 0o600 });
  aborting.abort();
  await aborted;
  const pooled = async (vmId: string, mode: number) =>
    (await registry.cloneForVm(vmId, 'debian', { ...WRITABLE, mode })).pooled;
  expect([await pooled('vm-1', 0o640), await pooled('vm-2', 0o600)]).toEqual([true, false]);
  await registry.drain();
  expect((await registry.readySlots()).map(({ mode }) => mode)).not.toContain(0o600);
});

test('a prewarm that is aborted after its template was replaced keeps what was asked for before', async () => {
  const host = await prewarmed(inject('scratch'), 2);
  const { registry } = host;
  const aborting = new AbortController();
  const filling = registry.prewarm('debian', { count: 100_000, signal: aborting.signal });
  const aborted = rejection(filling, 'ABORT_ERR');
  await host.addTemplate('debian', NEW);
  const sourceSha256 = sha256(NEW);
  expect(await registry.cloneForVm('vm-1', 'debian', WRITABLE)).toMatchObject({ sourceSha256 });
  aborting.abort();
  await aborted;
  for (const vmId of ['vm-2', 'vm-3', 'vm-4']) await registry.cloneForVm(vmId, 'debian', WRITABLE);
  await registry.drain();
  const made = (await readySlots(host)).length;
  await registry.cloneForVm('vm-5', 'debian', WRITABLE);
  await registry.drain();
  expect((await readySlots(host)).length).toBeLessThanOrEqual(Math.max(made, 2));
});

test('a pool that another process discarded is filled again at once', async () => {
  const host = await prewarmed(inject('scratch'), 8);
  await host.anotherRegistry().prewarm('debian', { count: 0 });
  expect(await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).toMatchObject({ pooled: false });
  await host.registry.drain();
  expect(await readySlots(host)).toHaveLength(8);
});

test('an abort ends the filling, and count 0 gives the pool up', async () => {
  const host = await prewarmed(inject('scratch'), 3);
  await rejection(
    host.registry.prewarm('debian', { count: 1_000_000, signal: AbortSignal.timeout(50) }),
    'ABORT_ERR',
  );
  expect((await readySlots(host)).length).toBeGreaterThanOrEqual(3);
  await host.registry.prewarm('debian', { count: 0 });
  expect(await readySlots(host)).toEqual([]);
  expect(await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).toMatchObject({ pooled: false });
});

test('a grown ready slot whose size stamp a power cut emptied is thrown away', async () => {
  const host = await Host.in();
  await host.addExt4Template('debian', 16 * MiB);
  await host.registry.prewarm('debian', { count: 1, sizeBytes: 32 * MiB });
  await host.registry.close();
  const [before = ''] = await readySlots(host);
  await truncate(join(readyPath(host, before), 'rootfs.ext4.size'), 0);
  const next = host.anotherRegistry();
  await next.prewarm('debian', { count: 1, sizeBytes: 32 * MiB });
  expect(await readySlots(host)).not.toContain(before);
});

test('what cannot be kept ready is refused with the reason', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', OLD);
  const prewarm = (stack: string, options: object) => host.registry.prewarm(stack, options as never);
  await rejection(prewarm('debian', { count: -1 }), 'INVALID_ARGUMENT');
  await rejection(prewarm('debian', { count: '1' }), 'INVALID_ARGUMENT');
  await rejection(prewarm('debian', { count: 1, durable: true }), 'INVALID_ARGUMENT');
  await rejection(prewarm('missing', { count: 1 }), 'STACK_NOT_FOUND');
  await rejection(prewarm('debian', { count: 1, sizeBytes: MiB - 1 }), 'SHRINK_REFUSED');
  await rejection(prewarm('debian', { count: 1, signal: AbortSignal.abort() }), 'ABORT_ERR');
  expect(await host.slotNames()).toEqual([]);
});

test('a ready slot that cannot be taken keeps no VM from a slot', async ({ skip }) => {
  const reason = filesystemNamed('XFS').missing ?? lacksRoot() ?? lacks('chattr');
  if (reason !== undefined) skip(reason);
  const host = await prewarmed(filesystemNamed('XFS').path, 4);
  const pool = join(host.clonesDir, '.microvm-rootfs/pool');
  const ready = (await readySlots(host)).map((name) => join(pool, name));
  execFileSync('chattr', ['+i', ...ready]);
  try {
    const clones = [
      await host.registry.cloneForVm('a', 'debian', WRITABLE),
      await host.registry.cloneForVm('b/c', 'debian', WRITABLE),
      host.registry.cloneForVmSync('d', 'debian', WRITABLE),
      ...(await host.registry.cloneMany([{ vmId: 'e', stack: 'debian', options: WRITABLE }])).map((result) =>
        result.status === 'fulfilled' ? result.value : undefined,
      ),
    ];
    for (const clone of clones) expect(clone).toMatchObject({ pooled: false, reused: false });
  } finally {
    execFileSync('chattr', ['-i', ...ready]);
  }
});

test('what is of no use and cannot be removed keeps nobody from filling the pool', async ({ skip }) => {
  const reason = filesystemNamed('XFS').missing ?? lacksRoot() ?? lacks('chattr');
  if (reason !== undefined) skip(reason);
  const host = await prewarmed(filesystemNamed('XFS').path, 1);
  const [ready] = await readySlots(host);
  const path = join(host.clonesDir, '.microvm-rootfs/pool', ready as string);
  await truncate(join(path, 'rootfs.ext4.sha256'), 0);
  execFileSync('chattr', ['+i', path]);
  try {
    const other = host.anotherRegistry();
    await other.prewarm('debian', { count: 2 });
    expect(await other.cloneForVm('vm-1', 'debian', WRITABLE)).toMatchObject({ pooled: true });
    await other.close();
  } finally {
    execFileSync('chattr', ['-i', path]);
  }
});

test('whoever asks for another count while a pool is renewed gets that one', async () => {
  for (const count of [0, 1]) {
    const host = await prewarmed(inject('scratch'), 5);
    await host.addTemplate('debian', NEW);
    await host.registry.stack('debian');
    await host.registry.prewarm('debian', { count });
    await host.registry.drain();
    expect(await readySlots(host), `${count}`).toHaveLength(count);
    for (let i = 0; i < 3; i++) await host.registry.cloneForVm(`vm-${i}`, 'debian', WRITABLE);
    await host.registry.drain();
    expect((await readySlots(host)).length).toBe(count);
  }
});

test('a count of 0 while the pool is filled leaves no ready slot behind', async () => {
  for (let round = 0; round < 5; round++) {
    const host = await Host.in(inject('scratch'));
    await host.addTemplate('debian', OLD);
    const filling = host.registry.prewarm('debian', { count: 500 });
    while ((await readySlots(host).catch(() => [])).length === 0) await sleep(1);
    await sleep(round);
    await host.registry.prewarm('debian', { count: 0 });
    await filling;
    await host.registry.drain();
    expect(await readySlots(host)).toEqual([]);
  }
});

test('a refill lists the folder again after a second, or after a ready slot was gone', async ({ skip }) => {
  const xfs = filesystemNamed('XFS');
  if (xfs.missing !== undefined) skip(xfs.missing);
  const now = vi.spyOn(performance, 'now').mockReturnValue(5000);
  onTestFinished(() => now.mockRestore());
  const host = await prewarmed(xfs.path, 2);
  const pool = join(host.clonesDir, '.microvm-rootfs/pool');
  let clones = 0;
  /** Whether refills that follow a clone listed the folder, as the time of its last access tells. */
  const isListed = async () => {
    const { mtime } = await stat(pool);
    await utimes(pool, new Date(1000), mtime);
    for (let i = 0; i < 2; i++) await host.registry.cloneForVm(`vm-${clones++}`, 'debian', WRITABLE);
    await host.registry.drain();
    return (await stat(pool)).atimeMs !== 1000;
  };
  expect(await isListed()).toBe(false);
  expect(await readySlots(host)).toHaveLength(2);
  now.mockReturnValue(6001);
  expect(await isListed()).toBe(true);
  expect(await isListed()).toBe(false);
  for (const name of await readySlots(host)) await rm(join(pool, name), { recursive: true });
  expect(await isListed()).toBe(true);
  expect(await readySlots(host)).toHaveLength(2);
});
