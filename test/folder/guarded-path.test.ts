// Paths through folders that another user can write to.
import {
  chmod,
  chown,
  lchown,
  link,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { native } from '../../src/addon/native.js';
import { openFileOf } from '../../src/folder/guarded-path.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { exists } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { JAILED, jail, VMM } from '../fixtures/jail.js';
import { rejection } from '../fixtures/rejection.js';
import { lacksRoot } from '../fixtures/tools.js';

/** A host, a folder of the VMM's, and one of the operator's. */
async function host(folder: string): Promise<{ host: Host; theirs: string; ours: string }> {
  const host = await Host.in(folder);
  await host.addTemplate('debian', 'the template');
  await host.registry.cloneForVm('vm', 'debian', { writable: true, owner: VMM });
  const [theirs, ours] = [join(host.root, 'theirs'), join(host.root, 'ours')];
  await mkdir(theirs);
  await chown(theirs, VMM.uid, VMM.gid);
  await mkdir(join(ours, 'folder'), { recursive: true });
  return { host, theirs, ours };
}

describeEachFilesystem(
  (filesystem) => {
    test('an export follows no link that a VMM made, at any depth', async ({ skip }) => {
      const { host, own } = await jail(skip, filesystem.path);
      await host.registry.cloneForVm('vm-2', 'debian', { ...JAILED, owner: { uid: 4243, gid: 4243 } });
      const other = host.slot('vm-2').path;
      await mkdir(join(own, 'deep', 'er'), { recursive: true });
      await symlink(other, join(own, 'link'));
      await symlink(other, join(own, 'deep', 'er', 'link'));
      await symlink('.', join(own, 'here'));
      for (const path of ['link/disk', 'deep/er/link/disk', 'here/disk', 'deep//er/./link//disk']) {
        const dest = `${own}/${path}`;
        await rejection(host.registry.exportTo('vm-1', dest, { owner: VMM, mode: 0o600 }), 'UNSAFE_PATH');
      }
      await host.registry.drain(); // on ext4 a file says so until the copy is flushed
      expect((await readdir(other)).sort()).toEqual(['rootfs.ext4', 'rootfs.ext4.sha256']);
      const exported = join(own, 'deep', 'er', 'disk');
      expect(await host.registry.exportTo('vm-1', exported, { owner: VMM })).toMatchObject({
        path: exported,
      });
    });
  },
  ({ name }) => ['XFS', 'ext4', 'btrfs', 'tmpfs'].includes(name),
);

test('links of the operator are followed, also to folders of a VMM', async ({ skip }) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(reason);
  const { host: h, theirs, ours } = await host(inject('scratch'));
  await symlink('folder', join(ours, 'relative'));
  await symlink(join(ours, 'folder'), join(ours, 'absolute'));
  await symlink('../theirs', join(ours, 'jail'));
  await symlink(join(ours, 'loop'), join(ours, 'loop'));
  for (const path of ['relative/a', 'absolute/b', 'folder/../relative/c', 'jail/d', './/folder///e']) {
    expect(await h.registry.exportTo('vm', `${ours}/${path}`)).toMatchObject({ strategy: 'hardlink' });
  }
  expect((await readdir(join(ours, 'folder'))).sort()).toEqual(['a', 'b', 'c', 'e']);
  expect(await readdir(theirs)).toEqual(['d']);
  await rejection(h.registry.exportTo('vm', `${ours}/loop/a`), 'UNSAFE_PATH');
  await rejection(h.registry.exportTo('vm', `${ours}/folder/`), 'INVALID_ARGUMENT');
  await rejection(h.registry.exportTo('vm', `${ours}/none/a`), 'ENOENT');
  await rejection(h.registry.exportTo('vm', `${ours}/folder/a/b`), 'ENOTDIR');
});

test('a folder that others may write to is not trusted with links; the sticky bit keeps ours', async ({
  skip,
}) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(reason);
  const { host: h, ours } = await host(inject('scratch'));
  const shared = join(ours, 'shared');
  await mkdir(shared);
  await symlink('../folder', join(shared, 'link'));
  for (const [mode, follows] of [
    [0o755, true],
    [0o775, false],
    [0o757, false],
    [0o1777, true],
  ] as const) {
    await chmod(shared, mode);
    const dest = `${shared}/link/disk-${mode}`;
    const call = h.registry.exportTo('vm', dest);
    if (follows) await call;
    else await rejection(call, 'UNSAFE_PATH');
  }
  await rm(join(shared, 'link'));
  await symlink('../folder', join(shared, 'link'));
  await lchown(join(shared, 'link'), VMM.uid, VMM.gid);
  await rejection(h.registry.exportTo('vm', `${shared}/link/disk`), 'UNSAFE_PATH');
});

test('a folder is opened once: what takes its name later does not matter', async ({ skip }) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(reason);
  const { theirs, ours } = await host(inject('scratch'));
  await mkdir(join(theirs, 'disks'));
  const folder = await native().openGuardedFolder(join(theirs, 'disks'), false);
  await rename(join(theirs, 'disks'), join(theirs, 'moved'));
  await symlink(join(ours, 'folder'), join(theirs, 'disks'));
  await writeFile(join(ours, 'source'), 'bytes');
  const { source } = await native().openSource(join(ours, 'source'));
  const { copy } = await native().newFileCopy(source, folder, 'disk');
  await native().fileCopyStep(copy, 1024);
  await native().publishFileCopy(copy, {}, true);
  expect(await readdir(join(ours, 'folder'))).toEqual([]);
  expect(await readFile(join(theirs, 'moved', 'disk'), 'utf8')).toBe('bytes');
  for (const handle of [copy, source, folder]) native().dispose(handle);
});

test('files of a snapshot: of root or the owner of the disk alone, and never by a link', async ({ skip }) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(reason);
  const { host: h, theirs, ours } = await host(inject('scratch'));
  const secret = join(ours, 'secret');
  await writeFile(secret, 'of the host', { mode: 0o600 });
  await symlink(secret, join(theirs, 'link'));
  await link(secret, join(theirs, 'second name'));
  await writeFile(join(theirs, 'of a third'), 'another VM’s');
  await chown(join(theirs, 'of a third'), 4243, 4243);
  for (const name of ['link', 'second name', 'of a third']) {
    await rejection(h.registry.snapshotSlot('vm', 'snap', { with: [join(theirs, name)] }), 'UNSAFE_PATH');
  }
  expect(await exists(join(h.clonesDir, '.microvm-rootfs', 'snapshots', 'snap'))).toBe(false);
  await writeFile(join(theirs, 'memory'), 'of the VMM');
  await chown(join(theirs, 'memory'), VMM.uid, VMM.gid);
  await writeFile(join(theirs, 'state'), 'of root');
  const kept = [join(theirs, 'memory'), join(theirs, 'state'), secret];
  expect(await h.registry.snapshotSlot('vm', 'snap', { with: kept })).toMatchObject({
    files: [{}, { name: 'memory' }, { name: 'state' }, { name: 'secret' }],
  });
  const opened = await openFileOf(join(theirs, 'state'), 0);
  expect(opened.guarded).toBe(false);
  native().dispose(opened.source);
});
