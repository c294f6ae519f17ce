// What a registry promises as a whole: checks before anything happens, warnings, closing.
import { mkdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { type CommitOptions, type PublishOptions, RootfsRegistry } from '../src/index.js';
import { runChild } from './fixtures/child.js';
import { snapshot, walk } from './fixtures/files.js';
import { Host } from './fixtures/host.js';
import { MiB } from './fixtures/images.js';
import { rejection } from './fixtures/rejection.js';

type Writable<T> = { -readonly [K in keyof T]: T[K] };

describe('bad input is refused with its own code and creates nothing', () => {
  const lone = '\ud83e';
  const ids: [string, unknown][] = [
    ['empty', ''],
    ['undefined', undefined],
    ['null', null],
    ['a number', 7],
    ['an object', { toString: () => 'vm' }],
    ['300 characters', 'v'.repeat(300)],
    ['a lone surrogate', lone],
  ];
  const stacks: [string, unknown][] = [
    ['empty', ''],
    ['a path', '../debian'],
    ['absolute', '/debian'],
    ['dots', '..'],
    ['hidden', '.debian'],
    ['NUL', 'deb\0ian'],
    ['a number', 7],
    ['undefined', undefined],
    ['a lone surrogate', lone],
  ];
  const sizes: [string, unknown][] = [
    ['negative', -1],
    ['fractional', 1.5],
    ['NaN', Number.NaN],
    ['infinite', Number.POSITIVE_INFINITY],
    ['above 2^53-1', 2 ** 53],
    ['a string', '8388608'],
    ['a bigint', 8388608n],
    ['null', null],
    ['undefined', undefined],
  ];
  const options: [string, unknown][] = [
    ['null', null],
    ['a string', 'writable'],
    ['an unknown key', { writeable: true }],
    ['writable that is no boolean', { writable: 1 }],
    ['durable that is no boolean', { durable: 'yes' }],
    ['a mode beyond permissions', { mode: 0o4755 }],
    ['a negative mode', { mode: -1 }],
    ['a mode as text', { mode: '600' }],
    ['an owner without gid', { owner: { uid: 1 } }],
    ['an owner as a number', { owner: 1000 }],
    ['a negative uid', { owner: { uid: -1, gid: 0 } }],
    ['a uid that means "leave it"', { owner: { uid: 2 ** 32 - 1, gid: 0 } }],
    ['an unknown key in owner', { owner: { uid: 1, gid: 1, name: 'x' } }],
    ['a signal that is none', { signal: { aborted: true } }],
    ['sizeBytes negative', { sizeBytes: -1 }],
  ];

  async function refused(code: string, call: (registry: RootfsRegistry) => Promise<unknown>): Promise<void> {
    const host = await Host.in();
    await host.addTemplate('debian', 'debian');
    const before = await snapshot(host.root);
    await rejection(call(host.registry), code);
    expect(await snapshot(host.root)).toEqual(before);
  }

  test.each(ids)('VM id: %s', async (_what, id) => {
    await refused('INVALID_VM_ID', (registry) => registry.cloneForVm(id as string, 'debian'));
    await refused('INVALID_VM_ID', (registry) => registry.cloneForVmWithSize(id as string, 'debian', 100));
    await refused('INVALID_VM_ID', (registry) => registry.release(id as string));
  });

  test.each(stacks)('stack: %s', async (_what, stack) => {
    await refused('INVALID_STACK_NAME', (registry) => registry.cloneForVm('vm-1', stack as string));
    await refused('INVALID_STACK_NAME', (registry) =>
      registry.cloneForVmWithSize('vm-1', stack as string, 100),
    );
    await refused('INVALID_STACK_NAME', (registry) => registry.stack(stack as string));
  });

  test.each(sizes)('size: %s', async (_what, size) => {
    await refused('INVALID_ARGUMENT', (registry) =>
      registry.cloneForVmWithSize('vm-1', 'debian', size as number),
    );
    await refused('INVALID_ARGUMENT', (registry) => registry.resizeExt4Image('/nonexistent', size as number));
  });

  test.each(options)('options: %s', async (_what, option) => {
    await refused('INVALID_ARGUMENT', (registry) => registry.cloneForVm('vm-1', 'debian', option as object));
  });

  // Options of a call with a size go another way into the same checks.
  test.each([
    ['null', null],
    ['a string', 'writable'],
    ['an unknown key', { writeable: true }],
  ])('options of a call with a size: %s', async (_what, option) => {
    await refused('INVALID_ARGUMENT', (registry) =>
      registry.cloneForVmWithSize('vm-1', 'debian', 100, option as unknown as object),
    );
  });
});

test('in order: id, stack, size', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  const grow = (id: string, stack: string, size: number) => host.registry.cloneForVmWithSize(id, stack, size);
  await rejection(grow('', '..', 0), 'INVALID_VM_ID');
  await rejection(grow('vm-1', '..', 0), 'INVALID_STACK_NAME');
  await rejection(grow('vm-1', 'missing', 0), 'STACK_NOT_FOUND');
  await rejection(grow('vm-1', 'debian', 0), 'SHRINK_REFUSED');
});

test('options of a prototype are not lost: a guest never writes to its template', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  const options = Object.create({ writable: true, mode: 0o640 });
  const clone = await host.registry.cloneForVmWithSize('vm-1', 'debian', 6, options);
  expect(clone.sharesTemplateInode).toBe(false);
  expect((await stat(clone.path)).mode & 0o777).toBe(0o640);
});

describe('options that the caller changes after the call do not count', () => {
  test('publishStack', async () => {
    const host = await Host.in();
    const [tree, other] = [join(host.root, 'tree'), join(host.root, 'other')];
    for (const folder of [tree, other]) await mkdir(folder);
    for (const name of ['a', 'b']) await writeFile(join(other, name), '');
    const options: Writable<PublishOptions> = {};
    const first = host.registry.publishStack('debian', tree, options);
    options.expectedSha256 = 'f'.repeat(64);
    const { sha256 } = await first;
    const later: Writable<PublishOptions> = {};
    const refused = host.registry.publishStack('debian', other, later);
    later.replace = true;
    await rejection(refused, 'STACK_EXISTS');
    const expecting: Writable<PublishOptions> = { replace: true, expectedSha256: 'f'.repeat(64) };
    const mismatch = host.registry.publishStack('debian', other, expecting);
    delete expecting.expectedSha256;
    await rejection(mismatch, 'DIGEST_MISMATCH');
    const limits = { maxFiles: 1 };
    const tooLarge = host.registry.publishStack('debian', other, { replace: true, limits });
    limits.maxFiles = 100;
    await rejection(tooLarge, 'SOURCE_TOO_LARGE');
    expect((await host.registry.stack('debian'))?.sha256).toBe(sha256);
  });

  test('commitSlot, pullStack and pullSnapshot', async () => {
    const host = await Host.in();
    await host.addExt4Template('debian', 16 * MiB);
    await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
    const options: Writable<CommitOptions> = {};
    const commit = host.registry.commitSlot('vm-1', 'debian', options);
    options.replace = true;
    await rejection(commit, 'STACK_EXISTS');
    const names = { name: '..' };
    const stack = host.registry.pullStack('localhost:1/a:1', names);
    const snapshotPull = host.registry.pullSnapshot('localhost:1/a:1', names);
    names.name = 'good';
    await rejection(stack, 'INVALID_STACK_NAME');
    await rejection(snapshotPull, 'INVALID_SNAPSHOT_NAME');
  });
});

describe('the warning of shared inodes', () => {
  const WARN = `
    process.on('warning', (warning) => console.log(warning.code, warning.name));
    const registry = new lib.RootfsRegistry({ templateDir: args.templateDir, clonesDir: args.clonesDir });
    for (const [i, options] of args.options.entries()) {
      const clone = await registry.cloneForVm('vm-' + i, 'debian', options);
      console.log(clone.strategy === 'hardlink' ? 'shared' : 'own');
    }
    await registry.close();
  `;

  async function warnings(options: object[]): Promise<string[]> {
    const host = await Host.in();
    await host.addTemplate('debian', 'debian');
    const { templateDir, clonesDir } = host;
    const { stdout, stderr } = await runChild(WARN, { templateDir, clonesDir, options });
    const lines = stdout.trim().split('\n');
    if (!lines.includes('shared')) return ['no hardlinks here'];
    expect(stderr).not.toContain('Error');
    return lines.filter((line) => line.startsWith('MICROVM'));
  }

  const ONE = [['MICROVM_ROOTFS_SHARED_INODE RootfsWarning'], ['no hardlinks here']];

  test('comes once in a process for plain clones', async () => {
    expect(ONE).toContainEqual(await warnings([{}, {}, {}]));
  });

  test('does not come if hardlinks are accepted', async () => {
    expect([[], ['no hardlinks here']]).toContainEqual(await warnings([{ writable: false }]));
  });
});

describe('closing', () => {
  test('a closed registry refuses work and can be closed again', async () => {
    const host = await Host.in();
    await host.addTemplate('debian', 'debian');
    await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
    await host.registry.close();
    await rejection(host.registry.cloneForVm('vm-2', 'debian'), 'CLOSED');
    await rejection(host.registry.release('vm-1'), 'CLOSED');
    await rejection(host.registry.stacks(), 'CLOSED');
    await rejection(host.registry.stack('debian'), 'CLOSED');
    await host.registry.close();
  });

  test('each method of a closed registry says so, whatever its arguments', async () => {
    const { registry } = await Host.in();
    await registry.close();
    type Method = (...args: unknown[]) => unknown;
    const methods = registry as unknown as Record<string, Method>;
    const names = Object.getOwnPropertyNames(RootfsRegistry.prototype);
    const others = ['constructor', 'drain', 'close', 'cloneMany', 'restoreMany'];
    for (const name of names.filter((each) => !others.includes(each))) {
      const call = async () => {
        const made = methods[name]?.('vm-1', 'debian', 1024);
        return Symbol.asyncIterator in Object(made) ? (made as AsyncGenerator).next() : made;
      };
      expect(await call().catch(({ code }) => code), name).toBe('CLOSED');
    }
    const results = [
      ...(await registry.cloneMany([{ vmId: 'vm-1', stack: 'debian' }])),
      ...(await registry.restoreMany([{ snapshot: 'snap', vmId: 'vm-1' }])),
    ];
    expect(results).toMatchObject([{ reason: { code: 'CLOSED' } }, { reason: { code: 'CLOSED' } }]);
  });

  test('leaves no staging folder behind', async () => {
    const host = await Host.in();
    await host.addTemplate('debian', 'debian');
    await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
    await host.registry.close();
    expect(await walk(`${host.clonesDir}/.microvm-rootfs/staging`)).toEqual([]);
  });

  test('waits for what is under way', async () => {
    const host = await Host.in();
    await host.addTemplate('debian', 'debian');
    await host.registry.stacks();
    const cloning = Array.from({ length: 20 }, (_, i) =>
      host.registry.cloneForVm(`vm-${i}`, 'debian', { writable: true }).then(
        () => 'made',
        (error) => error.code,
      ),
    );
    await sleep(2);
    await host.registry.close();
    const outcomes = new Set(await Promise.all(cloning));
    expect([...outcomes].filter((outcome) => outcome !== 'made' && outcome !== 'CLOSED')).toEqual([]);
  });

  test('a registry that never did anything closes', async () => {
    await new RootfsRegistry({ clonesDir: '/nonexistent' }).close();
  });
});

test('two registries in one process work on the same folders', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  const other = host.anotherRegistry();
  await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
  expect(await other.cloneForVm('vm-1', 'debian', { writable: true })).toMatchObject({ reused: true });
  expect(await other.release('vm-1')).toBe(true);
  expect(await host.registry.cloneForVm('vm-1', 'debian', { writable: true })).toMatchObject({
    reused: false,
  });
});

test('a clones folder inside the templates folder does not become a stack', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  await mkdir(`${host.templateDir}/clones`);
  await writeFile(`${host.templateDir}/clones/notes`, '');
  expect((await host.registry.stacks()).map(({ name }) => name)).toEqual(['debian']);
});
