import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { RootfsRegistry } from '../../src/index.js';
import { runChild } from '../fixtures/child.js';
import { exists } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { mountBind, mountTmpfs } from '../fixtures/mounts.js';
import { rejection, thrown } from '../fixtures/rejection.js';
import { lacksRoot } from '../fixtures/tools.js';
import { newWorkspace } from '../fixtures/workspace.js';

test.each([
  ['/srv/vms', '/srv/vms'],
  ['/srv/vms', '/srv/vms/'],
  ['/srv/vms', '/srv/./x/../vms'],
  ['/srv/vms/templates', '/srv/vms'],
  ['/srv/vms', '/srv/vms/templates'],
  ['/', '/srv/vms'],
])('templates in %s and clones in %s are refused when the registry is made', (templateDir, clonesDir) => {
  thrown(() => new RootfsRegistry({ templateDir, clonesDir }), 'FOLDERS_OVERLAP');
});

test('snapshots lie apart from both, or where they lie unless they are told to', () => {
  const folders = { templateDir: '/srv/templates', clonesDir: '/srv/vms' };
  for (const snapshotsDir of ['/srv/vms', '/srv/vms/snapshots', '/srv', '/srv/templates/kept'])
    thrown(() => new RootfsRegistry({ ...folders, snapshotsDir }), 'FOLDERS_OVERLAP');
  for (const snapshotsDir of ['/srv/snapshots', '/srv/vms-2', '/srv/vms/.microvm-rootfs/snapshots'])
    expect(new RootfsRegistry({ ...folders, snapshotsDir }).config).toMatchObject({ snapshotsDir });
});

test('folders that only the disk shows to be one are refused before anything is made in them', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  await symlink(host.templateDir, host.clonesDir);
  const within = host.anotherRegistry({ clonesDir: join(host.clonesDir, 'deep', 'vms') });
  for (const registry of [host.registry, within])
    await rejection(registry.cloneForVm('vm-1', 'debian', { writable: true }), 'FOLDERS_OVERLAP');
  expect(await exists(join(host.templateDir, '.microvm-rootfs'))).toBe(false);
  expect(await exists(join(host.templateDir, 'deep'))).toBe(false);
  expect(await host.registry.stack('debian')).toBeDefined();
});

test('a bind mount of the templates is no folder for clones', async ({ skip }) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(reason);
  const work = newWorkspace();
  const host = await Host.in(work.mount('apart', ['-t', 'tmpfs', 'tmpfs']));
  await host.addTemplate('debian', 'debian');
  await mkdir(host.clonesDir);
  execFileSync('mount', ['--bind', host.templateDir, host.clonesDir]);
  try {
    await rejection(host.registry.cloneForVm('vm-1', 'debian', { writable: true }), 'FOLDERS_OVERLAP');
  } finally {
    execFileSync('umount', [host.clonesDir]);
  }
});

test('what a bind mount shows of the folders, of a stack, a slot or our own folder takes no export', async ({
  skip,
}) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(reason);
  const host = await Host.in();
  const { registry, root, templateDir, clonesDir } = host;
  await host.addTemplate('debian', 'debian');
  await registry.cloneForVm('vm', 'debian', { writable: true });
  for (const folder of ['new', 'own disk']) await mkdir(join(templateDir, folder));
  await mkdir(join(clonesDir, 'vm-9'));
  mountTmpfs(join(templateDir, 'own disk'));
  for (const [path, name] of [
    [templateDir, 'new/rootfs.ext4'],
    [join(templateDir, 'new'), 'rootfs.ext4'],
    [join(templateDir, 'own disk'), 'rootfs.ext4'],
    [clonesDir, 'vm-9/rootfs.ext4'],
    [join(clonesDir, 'vm-9'), 'rootfs.ext4'],
    [join(clonesDir, '.microvm-rootfs'), 'disk'],
    [root, 'templates/new/rootfs.ext4'],
  ] as const) {
    const place = await mkdtemp(join(inject('scratch'), 'a place '));
    mountBind(path, place);
    await rejection(registry.exportTo('vm', join(place, name)), 'FOLDERS_OVERLAP');
  }
  expect((await registry.stacks()).map(({ name }) => name)).toEqual(['debian']);
  await registry.close();
});

test('also while exports by the hundred take all descriptors that a process may have', async ({ skip }) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(reason);
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  await mkdir(join(host.templateDir, 'new'));
  const place = await mkdtemp(join(inject('scratch'), 'place-'));
  mountBind(join(host.templateDir, 'new'), place);
  const { stdout } = await runChild(
    `const { place, ...folders } = args;
     const registry = new lib.RootfsRegistry(folders);
     await registry.cloneForVm('vm', 'debian', { writable: true });
     const places = Array.from({ length: 600 }, () => place + '/rootfs.ext4');
     const exported = await Promise.allSettled(places.map((path) => registry.exportTo('vm', path)));
     console.log(JSON.stringify([...new Set(exported.map(({ reason }) => reason?.code))]));
     await registry.close();`,
    { place, templateDir: host.templateDir, clonesDir: host.clonesDir },
    { under: ['prlimit', '--nofile=100:100'] },
  );
  expect(JSON.parse(stdout)).toEqual(['FOLDERS_OVERLAP']);
  expect(await exists(join(place, 'rootfs.ext4'))).toBe(false);
});

test("a part of the file system that a later mount hides is nobody's, and takes exports", async ({
  skip,
}) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(reason);
  const host = await Host.in();
  const { registry, root, templateDir } = host;
  const [below, place] = [join(templateDir, 'jail'), join(root, 'place')];
  for (const folder of [below, place, join(root, 'jail')]) await mkdir(folder);
  mountBind(root, place);
  mountTmpfs(templateDir);
  await mkdir(join(templateDir, 'debian'));
  await writeFile(host.template('debian'), 'debian');
  await registry.cloneForVm('vm', 'debian', { writable: true });
  await registry.exportTo('vm', join(place, 'templates/jail/disk'));
  await registry.exportTo('vm', join(place, 'jail/disk'));
  await registry.close();
});

test('clones in a folder of the templates that is mounted elsewhere are refused', async ({ skip }) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(reason);
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  await mkdir(host.clonesDir);
  mountBind(join(host.templateDir, 'debian'), host.clonesDir);
  await rejection(host.registry.cloneForVm('vm-1', 'debian', { writable: true }), 'FOLDERS_OVERLAP');
  await host.registry.close();
});
