// A slot becomes a template.
import { execFileSync } from 'node:child_process';
import { chmod, copyFile, mkdir, open, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { runChild } from '../fixtures/child.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';
import { mountBind } from '../fixtures/mounts.js';
import { rejection } from '../fixtures/rejection.js';
import { findTool, lacksRoot } from '../fixtures/tools.js';

describeEachFilesystem((filesystem) => {
  test('what a VM made of its disk is a stack of its own, and the slot stays', async () => {
    const host = await Host.in(filesystem.path);
    const { registry } = host;
    await host.addExt4Template('debian', 16 * MiB);
    const { path } = await registry.cloneForVmWithSize('vm', 'debian', 32 * MiB);
    execFileSync(findTool('debugfs') ?? 'debugfs', ['-w', '-R', 'mkdir /by-the-guest', path], {
      stdio: 'pipe',
    });
    const committed = await registry.commitSlot('vm', 'golden');
    expect(committed).toMatchObject({ name: 'golden', sizeBytes: 32 * MiB, replaced: false, format: 'raw' });
    expect((await readFile(host.template('golden'))).equals(await readFile(path))).toBe(true);
    const clone = await registry.cloneForVm('another', 'golden', { writable: true });
    expect(clone).toMatchObject({ stack: 'golden', sourceSha256: committed.sha256 });
    expect(await registry.cloneForVmWithSize('vm', 'debian', 32 * MiB)).toMatchObject({ reused: true });
    await rejection(registry.commitSlot('vm', 'golden'), 'STACK_EXISTS');
    expect(await registry.commitSlot('vm', 'golden', { replace: true })).toMatchObject({ replaced: true });
  });
});

test('a slot that is in use, is no filesystem, or is not there: refused, and the catalog stays as it was', async () => {
  const host = await Host.in(inject('scratch'));
  const { registry } = host;
  await host.addExt4Template('debian', 16 * MiB);
  await host.addTemplate('garbage', 'no filesystem');
  await registry.cloneForVm('vm', 'debian', { writable: true });
  await registry.cloneForVm('junk', 'garbage', { writable: true });
  const vmm = await open(host.slot('vm').image, 'r+');
  await rejection(registry.commitSlot('vm', 'golden'), 'SLOT_IN_USE');
  await vmm.close();
  await rejection(registry.commitSlot('junk', 'golden'), 'IMAGE_INVALID');
  await rejection(registry.commitSlot('nobody', 'golden'), 'SLOT_NOT_FOUND');
  await rejection(registry.commitSlot('vm', '../golden'), 'INVALID_STACK_NAME');
  expect((await registry.stacks()).map(({ name }) => name)).toEqual(['debian', 'garbage']);
});

test('a disk that only its VM may read becomes no template that everybody may read', async () => {
  const host = await Host.in(inject('scratch'));
  await host.addExt4Template('debian', 16 * MiB);
  for (const [id, mode, expected] of [
    ['private', 0o600, 0o400],
    ['public', 0o644, 0o444],
  ] as const) {
    await host.registry.cloneForVm(id, 'debian', { writable: true, mode });
    const { templatePath } = await host.registry.commitSlot(id, id);
    expect((await stat(templatePath)).mode & 0o777).toBe(expected);
  }
});

test('nor does it when its image or its snapshot is published by path; a file of a builder does', async () => {
  const host = await Host.in(inject('scratch'));
  const { registry } = host;
  const built = await host.addExt4Template('debian', 16 * MiB);
  await registry.cloneForVm('vm', 'debian', { writable: true });
  await registry.snapshotSlot('vm', 'before');
  await registry.commitSlot('vm', 'golden');
  const [file, link] = [join(host.root, 'built.ext4'), join(host.root, 'link')];
  await copyFile(built, file);
  await chmod(file, 0o600);
  await symlink(host.slot('vm').path, link);
  for (const [name, source, expected] of [
    ['slot', host.slot('vm').image, 0o400],
    ['slot-by-link', join(link, 'rootfs.ext4'), 0o400],
    ['snapshot', join(host.clonesDir, '.microvm-rootfs/snapshots/before/rootfs.ext4'), 0o400],
    ['template', host.template('golden'), 0o400],
    // Under a umask of 077.
    ['built', file, 0o444],
    ['public-template', built, 0o444],
  ] as const) {
    const { templatePath } = await registry.publishStack(name, source);
    expect((await stat(templatePath)).mode & 0o777, name).toBe(expected);
  }
});

test('nor by a bind mount of its folder or image, nor by standard input', async ({ skip }) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(reason);
  const host = await Host.in(inject('scratch'));
  const built = await host.addExt4Template('debian', 16 * MiB);
  await host.registry.cloneForVm('vm', 'debian', { writable: true });
  const { path, image } = host.slot('vm');
  const [folder, file, copy] = [join(host.root, 'folder'), join(host.root, 'file'), join(host.root, 'copy')];
  await mkdir(folder);
  await writeFile(file, '');
  await copyFile(built, copy);
  await chmod(copy, 0o600);
  mountBind(path, folder);
  mountBind(image, file);
  const modeOf = async (name: string) => (await stat(host.template(name))).mode & 0o777;
  for (const [name, source] of [
    ['by-folder', join(folder, 'rootfs.ext4')],
    ['by-file', file],
  ] as const) {
    await host.registry.publishStack(name, source);
    expect(await modeOf(name), name).toBe(0o400);
  }
  for (const [name, source, expected] of [
    ['by-input', image, 0o400],
    ['by-input-of-a-mount', file, 0o400],
    ['built', copy, 0o444],
  ] as const) {
    const under = ['sh', '-c', 'exec "$@" < "$0"', source];
    const body = `const registry = new lib.RootfsRegistry(args.config);
      await registry.publishStack(args.name, '-');
      await registry.close();`;
    const { stderr } = await runChild(body, { config: host.registry.config, name }, { under });
    expect(stderr).toBe('');
    expect(await modeOf(name), name).toBe(expected);
  }
  await host.registry.close();
});
