import { execFileSync } from 'node:child_process';
import { mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { RootfsRegistry } from '../../src/index.js';
import { exists } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
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
