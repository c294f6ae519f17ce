// What is not what it should be: folders, FIFOs, devices and links where an image or a folder is expected. Each refused
// by name, quickly, and nothing created.
import { execFileSync } from 'node:child_process';
import { mkdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { resizeExt4Image } from '../../src/index.js';
import { snapshot } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { rejection } from '../fixtures/rejection.js';

const ODD: [string, (path: string) => Promise<unknown> | unknown][] = [
  ['a folder', (path) => mkdir(path)],
  ['a FIFO', (path) => execFileSync('mkfifo', [path])],
  ['a character device', (path) => symlink('/dev/null', path)],
  ['a dangling symbolic link', (path) => symlink('/nonexistent/image', path)],
  ['a symbolic link to itself', (path) => symlink('rootfs.ext4', path)],
  [
    'a socket',
    (path) =>
      new Promise((resolve) => {
        const server = createServer().listen(path, () => resolve(undefined));
        onTestFinished(() => {
          server.close();
        });
      }),
  ],
];

describe('a template that is', () => {
  test.each(ODD)('%s', async (_what, make) => {
    const host = await Host.in();
    const path = host.template('debian');
    await mkdir(dirname(path), { recursive: true });
    await make(path);
    const before = await snapshot(host.root);
    const refusals = ['TEMPLATE_INVALID', 'ELOOP'];
    await rejection(host.registry.stack('debian'), refusals);
    await rejection(host.registry.cloneForVm('vm-1', 'debian'), refusals);
    await rejection(host.registry.cloneForVmWithSize('vm-1', 'debian', 1 << 20), refusals);
    expect(await host.slotNames()).toEqual([]);
    expect((await snapshot(host.root))['templates/debian/rootfs.ext4']).toBe(
      before['templates/debian/rootfs.ext4'],
    );
  });

  test('a symbolic link to a template that lies elsewhere: fine, and never hardlinked as a link', async () => {
    const host = await Host.in();
    await writeFile(join(host.root, 'golden'), 'golden');
    await mkdir(dirname(host.template('debian')), { recursive: true });
    await symlink(join(host.root, 'golden'), host.template('debian'));
    const clone = await host.registry.cloneForVm('vm-1', 'debian', { writable: false });
    expect((await stat(clone.path)).isFile()).toBe(true);
    expect(clone.sizeBytes).toBe(6);
  });
});

describe('a clones folder that is', () => {
  test.each([
    ['a file', (path: string) => writeFile(path, 'precious')],
    ['a dangling symbolic link', (path: string) => symlink('/nonexistent/folder', path)],
    [
      'below a file',
      async (path: string) => {
        await rm(dirname(path), { recursive: true });
        await writeFile(dirname(path), 'precious');
      },
    ],
  ])('%s', async (_what, make) => {
    const host = await Host.in();
    await host.addTemplate('debian', 'debian');
    const clonesDir = join(host.root, 'nested', 'clones');
    await mkdir(dirname(clonesDir));
    await make(clonesDir);
    const before = await snapshot(host.root);
    const registry = host.anotherRegistry({ clonesDir });
    const error = await rejection(registry.cloneForVm('vm-1', 'debian', { writable: true }), [
      'CLONES_DIR_INVALID',
      'ENOENT',
    ]);
    expect(error.message).toContain(clonesDir);
    expect(await snapshot(host.root)).toEqual(before);
  });

  test.each([
    ['a file', (path: string) => writeFile(path, '')],
    ['a symbolic link to another folder', (path: string) => symlink('/tmp', path)],
  ])('fine, but our own folder in it is %s', async (_what, make) => {
    const host = await Host.in();
    await host.addTemplate('debian', 'debian');
    await mkdir(host.clonesDir);
    await make(join(host.clonesDir, '.microvm-rootfs'));
    await rejection(host.registry.cloneForVm('vm-1', 'debian', { writable: true }), 'CLONES_DIR_INVALID');
    expect(await host.slotNames()).toEqual([]);
  });

  test('whichever folder it is, the error names it, and what in it is no folder', async () => {
    const host = await Host.in();
    await host.addTemplate('debian', 'debian');
    await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
    const snapshotsDir = join(host.root, 'kept');
    const own = join(snapshotsDir, '.microvm-rootfs');
    await mkdir(snapshotsDir);
    await writeFile(own, '');
    const taken = host.anotherRegistry({ snapshotsDir }).snapshotSlot('vm-1', 'first');
    const { message, path } = await rejection(taken, 'CLONES_DIR_INVALID');
    expect(message).toBe(
      `opening the folder of snapshots ${snapshotsDir}: ${own} is not a folder: move it away`,
    );
    expect(path).toBe(own);
  });

  test('a symbolic link to a folder: fine', async () => {
    const host = await Host.in();
    await host.addTemplate('debian', 'debian');
    await mkdir(join(host.root, 'elsewhere'));
    await symlink(join(host.root, 'elsewhere'), host.clonesDir);
    expect((await host.registry.cloneForVm('vm-1', 'debian', { writable: true })).reused).toBe(false);
  });
});

test.each(ODD)('an image to resize that is %s', async (_what, make) => {
  const host = await Host.in();
  const path = join(host.root, 'rootfs.ext4');
  await make(path);
  const error = await rejection(resizeExt4Image(path, 1 << 20), [
    'INVALID_ARGUMENT',
    'EISDIR',
    'ENOENT',
    'ELOOP',
    'ENXIO',
  ]);
  expect(error.message).toContain(path);
});
