// Options and edges of cloning that do not depend on the filesystem; what does is in conformance/.
import {
  chmod,
  mkdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { runChild } from '../fixtures/child.js';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { exists, sha256, sha256Of, snapshot } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';

const WRITABLE = { writable: true } as const;

async function hostWithTemplate(contents: Buffer | string = 'debian'): Promise<Host> {
  const host = await Host.in();
  await host.addTemplate('debian', contents);
  return host;
}

test('the clones folder is made when the first slot is', async () => {
  const host = await hostWithTemplate();
  const registry = host.anotherRegistry({ clonesDir: join(host.root, 'a/b/c') });
  expect((await registry.cloneForVm('vm-1', 'debian', WRITABLE)).path).toBe(
    join(host.root, 'a/b/c/vm-1/rootfs.ext4'),
  );
});

test('modes: image 0600, stamps 0644, slot 0755, our own folder 0700', async () => {
  const host = await hostWithTemplate();
  await host.registry.cloneForVm('vm/1', 'debian', WRITABLE);
  const slot = host.slot('vm_1');
  const modeOf = async (path: string) => (await stat(path)).mode & 0o7777;
  expect(await modeOf(slot.image)).toBe(0o600);
  // The sticky bit says that there is a raw id; the kernel ignores it on files.
  expect(await modeOf(slot.stamp)).toBe(0o1644);
  await host.registry.cloneForVm('vm-2', 'debian', WRITABLE);
  expect(await modeOf(host.slot('vm-2').stamp)).toBe(0o644);
  expect(await modeOf(slot.rawId)).toBe(0o644);
  expect(await modeOf(slot.path)).toBe(0o755);
  expect(await modeOf(join(host.clonesDir, '.microvm-rootfs'))).toBe(0o700);
});

test('modes under a umask that takes everything, and another process gets on with what was made', async () => {
  const host = await hostWithTemplate();
  const { stdout, stderr } = await runChild(
    `process.umask(0o777);
     for (let i = 0; i < 2; i++) {
       const registry = new lib.RootfsRegistry(args.config);
       await registry.cloneForVm('vm', 'debian', { writable: true });
       if (i === 0) await registry.snapshotSlot('vm', 'paused');
       else await registry.restoreSnapshot('paused', 'vm-2', { mode: 0o640 });
       if (i === 0) await registry.exportTo('vm', args.root + '/hardlink');
       await registry.release('vm-3');
       if (i === 0) await registry.cloneForVm('vm-3', 'debian', { writable: true });
       await registry.close();
     }`,
    { config: host.registry.config, root: host.root },
  );
  expect({ stdout, stderr }).toEqual({ stdout: '', stderr: '' });
  const ours = join(host.clonesDir, '.microvm-rootfs');
  for (const [path, mode] of [
    [host.slot('vm').image, 0o600],
    [`${host.slot('vm').image}.exported`, 0o644],
    [host.slot('vm-2').image, 0o640],
    [host.slot('vm').stamp, 0o644],
    [host.slot('vm').path, 0o755],
    ...[
      '',
      'staging',
      'trash',
      'pool',
      'sealed',
      'digests',
      'snapshots/paused',
      'snapshots/.microvm-rootfs',
    ].map((name) => [join(ours, name), 0o700] as const),
    [join(ours, 'snapshots/paused/rootfs.ext4'), 0o400],
    [join(ours, 'snapshots/paused/SHA256SUMS'), 0o444],
    [join(ours, 'release.lock'), 0o600],
  ] as const)
    expect((await stat(path)).mode & 0o7777, path).toBe(mode);
});

test('a slot holds nothing but what the layout knows', async () => {
  const host = await hostWithTemplate();
  await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  await host.registry.cloneForVm('vm/2', 'debian', WRITABLE);
  const names = async (id: string) => Object.keys(await snapshot(host.slot(id).path)).sort();
  expect(await names('vm-1')).toEqual(['rootfs.ext4', 'rootfs.ext4.sha256']);
  expect(await names('vm_2')).toEqual(['rootfs.ext4', 'rootfs.ext4.id', 'rootfs.ext4.sha256']);
  expect(await readFile(host.slot('vm_2').rawId, 'utf8')).toBe('vm/2');
});

test('attempts says which rungs were left and why', async () => {
  const host = await hostWithTemplate();
  const clone = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  if (clone.strategy === 'copy') expect(clone.attempts).toEqual([{ strategy: 'reflink', code: 'ENOTSUP' }]);
  else expect(clone).toMatchObject({ strategy: 'reflink', attempts: [] });
});

test('sizeBytes in the options is the same as cloneForVmWithSize', async () => {
  const host = await hostWithTemplate();
  await rejection(host.registry.cloneForVm('vm-1', 'debian', { sizeBytes: 5 }), 'SHRINK_REFUSED');
  expect((await host.registry.cloneForVm('vm-1', 'debian', { sizeBytes: 6, ...WRITABLE })).sizeBytes).toBe(6);
  await rejection(
    host.registry.cloneForVmWithSize('vm-1', 'debian', 6, { sizeBytes: 7 }),
    'INVALID_ARGUMENT',
  );
});

test('ids that start with a dot or a dash, or look like a path, are names like any other', async () => {
  const host = await hostWithTemplate();
  for (const id of ['..', '.microvm-rootfs', '-rf', '../../vm', '/']) {
    const clone = await host.registry.cloneForVm(id, 'debian', WRITABLE);
    expect(clone.path.startsWith(`${host.clonesDir}/`)).toBe(true);
    expect(clone.vmId).toMatch(/^[A-Za-z0-9_-]+$/);
  }
  expect(await host.slotNames()).toEqual(['-rf', '_', '__', '______vm', '_microvm-rootfs']);
});

type Damage = (slot: ReturnType<Host['slot']>) => Promise<unknown>;

/** A slot that was damaged is refused with this code, and only a release makes room for a new clone. */
async function expectUntouched(damage: Damage, code: string): Promise<void> {
  const host = await hostWithTemplate();
  await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  await host.registry.drain();
  const slot = host.slot('vm-1');
  await damage(slot);
  const before = await snapshot(slot.path);
  const error = await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), code);
  expect(error.message).toMatch(/release/);
  expect(await snapshot(slot.path)).toEqual(before);
  await host.registry.release('vm-1');
  expect(await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).toMatchObject({ reused: false });
}

describe('a slot that is there', () => {
  test.each([
    ['stamp missing', (slot) => rm(slot.stamp)],
    ['stamp empty, as after a power cut', (slot) => truncate(slot.stamp, 0)],
    ['image missing', (slot) => rm(slot.image)],
    ['image short, as after a power cut', (slot) => truncate(slot.image, 5)],
    ['image empty', (slot) => truncate(slot.image, 0)],
    ['size stamp empty', (slot) => writeFile(slot.sizeStamp, '')],
    ['image shorter than its size stamp', (slot) => writeFile(slot.sizeStamp, '7')],
  ] as [string, Damage][])('is torn and not touched: %s', (_what, damage) =>
    expectUntouched(damage, 'SLOT_TORN'),
  );

  test('longer than the template, without a size stamp, is torn, and never to be released', async () => {
    const host = await hostWithTemplate();
    await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    await truncate(host.slot('vm-1').image, 7);
    const { message } = await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), 'SLOT_TORN');
    expect(message).toContain('ask for 7 bytes');
    expect(message).not.toMatch(/release/);
    expect(await host.registry.slot('vm-1')).toMatchObject({ health: 'unknown' });
  });

  test.each([
    ['a folder', (path) => mkdir(path)],
    ['a symbolic link', (path) => symlink('/etc/passwd', path)],
  ] as [string, (path: string) => Promise<unknown>][])(
    'has %s for an image, which no crash leaves, and is not touched',
    async (_what, make) => {
      const host = await hostWithTemplate();
      await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
      await host.registry.drain();
      const slot = host.slot('vm-1');
      await rm(slot.image);
      await make(slot.image);
      const before = await snapshot(slot.path);
      await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), 'SLOT_INVALID');
      expect(await snapshot(slot.path)).toEqual(before);
      await host.registry.release('vm-1');
      expect(await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).toMatchObject({ reused: false });
    },
  );

  test.each([
    ['stamp cut off', (slot) => truncate(slot.stamp, 63)],
    ['stamp garbage', (slot) => writeFile(slot.stamp, 'x'.repeat(64))],
    ['stamp huge', (slot) => writeFile(slot.stamp, 'a'.repeat(1 << 20))],
    ['stamp a folder', (slot) => rm(slot.stamp).then(() => mkdir(slot.stamp))],
    ['stamp a symbolic link', (slot) => rm(slot.stamp).then(() => symlink('/etc/passwd', slot.stamp))],
    ['size stamp garbage', (slot) => writeFile(slot.sizeStamp, '8 MiB')],
  ] as [string, Damage][])('has a stamp that nobody here can read, and is not touched: %s', (_what, damage) =>
    expectUntouched(damage, 'STAMP_INVALID'),
  );

  test.each([
    ['a file', (path: string) => writeFile(path, 'precious')],
    ['a symbolic link to a folder', (path: string) => symlink('/tmp', path)],
    ['a symbolic link to nothing', (path: string) => symlink('/nonexistent', path)],
  ])('is not a slot, and not touched: %s', async (_what, make) => {
    const host = await hostWithTemplate();
    await mkdir(host.clonesDir);
    await make(host.slot('vm-1').path);
    const before = await snapshot(host.clonesDir);
    await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), 'SLOT_INVALID');
    await rejection(host.registry.release('vm-1'), 'SLOT_INVALID');
    const after = await snapshot(host.clonesDir);
    expect(after['vm-1']).toBe(before['vm-1']);
  });

  test('is returned whatever size it was grown to, by one who asks for none', async () => {
    const host = await hostWithTemplate();
    await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    const slot = host.slot('vm-1');
    await truncate(slot.image, 100);
    await writeFile(slot.sizeStamp, '100');
    expect(await host.registry.cloneForVm('vm-1', 'debian')).toMatchObject({ reused: true, sizeBytes: 100 });
  });

  test('with a newline after its stamp, from another program, is fine', async () => {
    const host = await hostWithTemplate();
    await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    await writeFile(host.slot('vm-1').stamp, `${sha256('debian')}\n`);
    expect((await host.registry.cloneForVm('vm-1', 'debian')).reused).toBe(true);
  });

  test('that the guest has written to is reused with what it wrote', async () => {
    const host = await hostWithTemplate();
    const { path } = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    await writeFile(path, 'guest!');
    expect((await host.registry.cloneForVm('vm-1', 'debian')).reused).toBe(true);
    expect(await readFile(path, 'utf8')).toBe('guest!');
  });

  test('of another stack with the same bytes is the same clone', async () => {
    const host = await hostWithTemplate();
    await host.addTemplate('debian-again', 'debian');
    await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    expect((await host.registry.cloneForVm('vm-1', 'debian-again')).reused).toBe(true);
  });

  test('takes the mode that is asked for later', async () => {
    const host = await hostWithTemplate();
    const { path } = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    await host.registry.cloneForVm('vm-1', 'debian', { mode: 0o640 });
    expect((await stat(path)).mode & 0o777).toBe(0o640);
  });
});

test('a clones folder that is removed under a running registry is made anew', async () => {
  const host = await hostWithTemplate();
  await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  await rm(host.clonesDir, { recursive: true });
  expect((await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).reused).toBe(false);
  await rm(join(host.clonesDir, '.microvm-rootfs'), { recursive: true });
  expect((await host.registry.cloneForVm('vm-2', 'debian', WRITABLE)).reused).toBe(false);
});

test('a clones folder that is replaced by another is noticed', async () => {
  const host = await hostWithTemplate();
  await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  await rename(host.clonesDir, join(host.root, 'old'));
  await mkdir(host.clonesDir);
  const clone = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  expect(clone.reused).toBe(false);
  expect(await exists(clone.path)).toBe(true);
});

test('a template that was touched but has the same bytes has the same stamp', async () => {
  const host = await hostWithTemplate(pattern(MiB));
  await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  await utimes(host.template('debian'), new Date(), new Date(0));
  await chmod(host.template('debian'), 0o444);
  expect((await host.registry.cloneForVm('vm-1', 'debian')).reused).toBe(true);
  const other = await host.registry.cloneForVm('vm-2', 'debian', WRITABLE);
  expect(await sha256Of(other.path)).toBe(other.sourceSha256);
});

test('an abort before anything is done leaves nothing', async () => {
  const host = await hostWithTemplate();
  await rejection(host.registry.cloneForVm('vm-1', 'debian', { signal: AbortSignal.abort() }), 'ABORT_ERR');
  expect(await host.slotNames()).toEqual([]);
});

test('an abort in the middle of a copy leaves nothing', async () => {
  const host = await hostWithTemplate(pattern(96 * MiB));
  const controller = new AbortController();
  await host.registry.stack('debian');
  const cloning = host.registry.cloneForVm('vm-1', 'debian', { ...WRITABLE, signal: controller.signal });
  setTimeout(() => controller.abort(), 5);
  await rejection(cloning, 'ABORT_ERR');
  expect(await host.slotNames()).toEqual([]);
  expect(await host.leftovers()).toEqual([]);
});

// 512 templates and 256 sealed images are kept open.
describe.each([
  ['durable', { durable: true }, {}],
  ['without sealed images', {}, { sealing: 'off' }],
  ['from sealed images', {}, {}],
] as const)('more stacks at once than can be open, %s', (_what, options, config) => {
  test('all get their clones, looked at for the first time and known', { timeout: 240_000 }, async ({
    skip,
  }) => {
    const filesystem = filesystemNamed('XFS');
    if (filesystem.missing !== undefined) skip(filesystem.missing);
    const host = await Host.in(filesystem.path, config);
    const names = Array.from({ length: 640 }, (_, i) => `stack-${i}`);
    for (const name of names) await host.addTemplate(name, name);
    for (const state of ['new', 'known']) {
      const requests = names.map((stack) => ({
        vmId: `${state}-${stack}`,
        stack,
        options: { ...WRITABLE, ...options },
      }));
      const clones =
        state === 'new'
          ? await host.registry.cloneMany(requests)
          : await Promise.allSettled(
              requests.map(({ vmId, stack, options }) => host.registry.cloneForVm(vmId, stack, options)),
            );
      expect(clones.filter(({ status }) => status === 'rejected')).toEqual([]);
    }
    for (const stack of ['stack-0', 'stack-639'])
      expect(await readFile(host.slot(`known-${stack}`).image, 'utf8')).toBe(stack);
  });
});
