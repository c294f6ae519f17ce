// Owner, mode and attributes of templates and clones.
import { execFileSync } from 'node:child_process';
import { chmod, chown, mkdir, open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { cli } from '../cli/run-cli.js';
import { runChild } from '../fixtures/child.js';
import { describeEachFilesystem, filesystemNamed } from '../fixtures/each-filesystem.js';
import { sha256Of, snapshot } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern, run } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';
import { whileHashing } from '../fixtures/while-hashing.js';

const WRITABLE = { writable: true } as const;

describeEachFilesystem((filesystem) => {
  test('a read-only template yields a clone that its owner can write', async () => {
    const host = await Host.in(filesystem.path);
    await chmod(await host.addTemplate('debian', pattern(MiB)), 0o444);
    const { path } = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    await (await open(path, 'r+')).close();
  });
});

describeEachFilesystem(
  (filesystem) => {
    test('chown through a hardlink is refused, the template keeps its owner', async () => {
      const host = await Host.in(filesystem.path);
      await host.addTemplate('debian', pattern(MiB));
      const before = await snapshot(host.templateDir);
      const owner = { uid: 1234, gid: 1234 };
      await rejection(host.registry.cloneForVm('vm-1', 'debian', { owner }), 'SHARED_INODE');
      await host.registry.cloneForVm('vm-1', 'debian', { writable: false });
      await rejection(host.registry.cloneForVm('vm-1', 'debian', { owner }), 'SHARED_INODE');
      expect(await snapshot(host.templateDir)).toEqual(before);
    });
  },
  ({ reflinks }) => !reflinks,
);

test('an immutable template cannot be hardlinked: a copy, and attempts says why', async ({ skip }) => {
  const ext4 = filesystemNamed('ext4');
  const reason = ext4.missing ?? lacksRoot() ?? lacks('chattr');
  if (reason !== undefined) skip(reason);
  const host = await Host.in(ext4.path);
  const template = await host.addTemplate('debian', pattern(MiB));
  await run('chattr', ['+i', template]);
  try {
    const clone = await host.registry.cloneForVm('vm-1', 'debian', { writable: false });
    expect(clone).toMatchObject({
      strategy: 'copy',
      sharesTemplateInode: false,
      attempts: [
        { strategy: 'reflink', code: 'ENOTSUP' },
        { strategy: 'hardlink', code: 'EPERM' },
      ],
    });
    // Nor would owner or mode change it.
    const owned = await host.registry.cloneForVm('vm-2', 'debian', { owner: { uid: 1234, gid: 1234 } });
    expect(owned).toMatchObject({ strategy: 'copy', attempts: clone.attempts });
    expect((await stat(owned.path)).uid).toBe(1234);
    expect(await sha256Of(clone.path)).toBe(clone.sourceSha256);
  } finally {
    await run('chattr', ['-i', template]);
  }
});

test('templates on a bind mount of the same disk cannot be hardlinked: owner and mode are those of a copy', async ({
  skip,
}) => {
  const ext4 = filesystemNamed('ext4');
  const reason = ext4.missing ?? lacksRoot();
  if (reason !== undefined) skip(reason);
  const host = await Host.in(ext4.path);
  await host.addTemplate('debian', pattern(MiB));
  const owner = { uid: 1234, gid: 1234 };
  execFileSync('mount', ['--bind', host.templateDir, host.templateDir]);
  try {
    const mounted = host.anotherRegistry();
    for (const [id, options] of Object.entries({ plain: {}, owned: { owner }, moded: { mode: 0o640 } })) {
      expect(await mounted.cloneForVm(id, 'debian', options)).toMatchObject({
        strategy: 'copy',
        attempts: [
          { strategy: 'reflink', code: 'ENOTSUP' },
          { strategy: 'hardlink', code: 'EXDEV' },
        ],
      });
    }
    await mounted.close();
  } finally {
    execFileSync('umount', [host.templateDir]);
  }
  // Now it could be the template, which a refusal leaves as it is, and known.
  const before = await snapshot(host.templateDir);
  await rejection(host.registry.cloneForVm('vm-1', 'debian', { owner }), 'SHARED_INODE');
  let hashed = 0;
  whileHashing(() => hashed++);
  for (let i = 0; i < 3; i++)
    await rejection(host.registry.cloneForVm('vm-1', 'debian', { owner }), 'SHARED_INODE');
  expect(hashed).toBe(0);
  expect(await snapshot(host.templateDir)).toEqual(before);
});

test('an immutable template is reflinked like any other, and its clone is not immutable', async ({
  skip,
}) => {
  const xfs = filesystemNamed('XFS');
  const reason = xfs.missing ?? lacksRoot() ?? lacks('chattr');
  if (reason !== undefined) skip(reason);
  const host = await Host.in(xfs.path);
  const template = await host.addTemplate('debian', pattern(MiB));
  await run('chattr', ['+i', template]);
  try {
    const clone = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    expect(clone.strategy).toBe('reflink');
    await (await open(clone.path, 'r+')).close();
  } finally {
    await run('chattr', ['-i', template]);
  }
});

test("another user's template: protected_hardlinks forbids the link, the clone is a copy", async ({
  skip,
}) => {
  const reason = filesystemNamed('ext4').missing ?? lacksRoot();
  if (reason !== undefined) skip(reason);
  const host = await Host.in(filesystemNamed('ext4').path);
  await chmod(host.root, 0o755);
  await chmod(await host.addTemplate('debian', pattern(MiB)), 0o444);
  const nobody = 65534;
  const { stdout, stderr } = await runChild(
    `const registry = new lib.RootfsRegistry(args);
     const { strategy, attempts } = await registry.cloneForVm('vm-1', 'debian', { writable: false });
     await registry.close();
     console.log(JSON.stringify([strategy, attempts.map(({ code }) => code)]));`,
    { templateDir: host.templateDir, clonesDir: await folderFor(host, nobody) },
    { uid: nobody },
  );
  expect(stderr).toBe('');
  expect([
    ['copy', ['ENOTSUP', 'EPERM']],
    ['hardlink', ['ENOTSUP']], // where the sysctl is off
  ]).toContainEqual(JSON.parse(stdout));
});

test('a user without privileges grows a clone that it may then only read', async ({ skip }) => {
  const reason = filesystemNamed('ext4').missing ?? lacksRoot();
  if (reason !== undefined) skip(reason);
  const host = await Host.in(filesystemNamed('ext4').path);
  await chmod(host.root, 0o755);
  await chmod(await host.addExt4Template('debian', 16 * MiB), 0o444);
  const nobody = 65534;
  const { stdout, stderr } = await runChild(
    `const registry = new lib.RootfsRegistry(args);
     const clone = await registry.cloneForVmWithSize('vm-1', 'debian', 2 ** 25, { mode: 0o400 });
     await registry.close();
     console.log(clone.sizeBytes, (require('fs').statSync(clone.path).mode & 0o777).toString(8));`,
    { templateDir: host.templateDir, clonesDir: await folderFor(host, nobody) },
    { uid: nobody },
  );
  expect([stdout, stderr]).toEqual([`${32 * MiB} 400\n`, '']);
});

test.for(['ext4', 'XFS'])(
  'with no privilege but CAP_CHOWN disks are given away, flushed and left, on %s',
  async (name, { skip }) => {
    const { missing, path } = filesystemNamed(name);
    const reason = missing ?? lacksRoot();
    if (reason !== undefined) skip(reason);
    const host = await Host.in(path);
    await chmod(host.root, 0o755);
    await chmod(await host.addExt4Template('debian', 16 * MiB), 0o444);
    const nobody = 65534;
    const given = { writable: true, owner: { uid: 2000, gid: 2000 }, mode: 0o600 };
    const user = [`--reuid=${nobody}`, `--regid=${nobody}`, '--clear-groups'];
    const { stdout, stderr } = await runChild(
      `const registry = new lib.RootfsRegistry(args.config);
       const clone = (id, options = {}) => registry.cloneForVm(id, 'debian', { ...args.given, ...options });
       await clone('vm-1');
       await registry.drain();
       await clone('vm-2', { durable: true });
       await clone('vm-2', { durable: true });
       await registry.cloneForVmWithSize('vm-3', 'debian', 2 ** 25, { ...args.given, durable: true });
       await registry.prewarm('debian', { count: 1, owner: args.given.owner, mode: args.given.mode });
       const { unknown } = await registry.gc({ keep: [] });
       await registry.recover();
       await registry.close();
       console.log(unknown.sort().join(' '));`,
      { config: { templateDir: host.templateDir, clonesDir: await folderFor(host, nobody) }, given },
      { under: ['setpriv', ...user, '--inh-caps=+chown', '--ambient-caps=+chown'] },
    );
    expect([stdout, stderr]).toEqual(['vm-1 vm-2 vm-3\n', '']);
    const slot = `${host.root}/of-${nobody}/clones/vm-1`;
    expect((await readdir(slot)).sort()).toEqual(['rootfs.ext4', 'rootfs.ext4.sha256']);
    expect(await stat(`${slot}/rootfs.ext4`)).toMatchObject({ uid: 2000, mode: 0o100600 });
  },
);

test('where no hardlink of the template can be, owner and mode are no danger to it', async ({ skip }) => {
  const reason = filesystemNamed('ext4').missing ?? lacksRoot();
  if (reason !== undefined) skip(reason);
  const templates = await Host.in(filesystemNamed('tmpfs').path);
  await templates.addTemplate('debian', pattern(MiB));
  const host = await Host.in(filesystemNamed('ext4').path, { templateDir: templates.templateDir });
  const clone = await host.registry.cloneForVm('vm-1', 'debian', { mode: 0o640 });
  expect(clone).toMatchObject({ strategy: 'copy', sharesTemplateInode: false });
  expect(clone.attempts).toContainEqual({ strategy: 'hardlink', code: 'EXDEV' });
});

test('a folder that may not be written to is EACCES, with the path', async ({ skip }) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(`${reason}, to become another user`);
  const host = await Host.in();
  await chmod(host.root, 0o755);
  await host.addTemplate('debian', 'debian');
  const { stdout } = await runChild(
    `const registry = new lib.RootfsRegistry(args);
     await registry.cloneForVm('vm-1', 'debian').catch((error) => console.log(error.code, error.message));`,
    { templateDir: host.templateDir, clonesDir: host.clonesDir },
    { uid: 65534 },
  );
  expect(stdout).toMatch(/^EACCES /);
  expect(stdout).toContain(host.clonesDir);
});

test('a folder of another user hides no slot: it is told of when all others were listed', async ({
  skip,
}) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(`${reason}, to become another user`);
  const host = await Host.in();
  await chmod(host.root, 0o755);
  await chmod(await host.addTemplate('debian', pattern(MiB)), 0o444);
  const clonesDir = await folderFor(host, 65534);
  await mkdir(join(clonesDir, 'a-private'), { recursive: true, mode: 0o700 });
  await chmod(clonesDir, 0o755);
  await chown(clonesDir, 65534, 65534);
  const config = { templateDir: host.templateDir, clonesDir };
  const { stdout, stderr } = await runChild(
    `const registry = new lib.RootfsRegistry(args);
     for (const id of ['vm-1', 'vm-2']) await registry.cloneForVm(id, 'debian', { writable: true });
     const listed = [];
     try {
       for await (const { rawId } of registry.slots()) listed.push(rawId);
     } catch (error) { listed.push(error.code); }
     await registry.close();
     console.log(listed.sort().join(' '));`,
    config,
    { uid: 65534 },
  );
  expect([stdout, stderr]).toEqual(['EACCES vm-1 vm-2\n', '']);
  const under = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
  const listing = await cli(config, ['ls'], { under });
  expect(listing.stdout).toMatch(/vm-1.*vm-2/s);
  expect(listing.stderr).toContain(join(clonesDir, 'a-private'));
  expect(listing.code).not.toBe(0);
});

test('the command warns root of folders that belong to another user', async ({ skip }) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(reason);
  const host = await Host.in();
  await mkdir(host.clonesDir, { recursive: true });
  expect((await cli(host, ['ls'])).stderr).toBe('');
  await chown(host.clonesDir, 4711, 4711);
  const { code, stderr } = await cli(host, ['ls']);
  expect(stderr).toContain(`${host.clonesDir} belongs to user 4711`);
  expect(code).toBe(0);
});

/** A folder that this user may write to, and in which the clones folder is still to be made. */
async function folderFor(host: Host, uid: number): Promise<string> {
  const folder = `${host.root}/of-${uid}`;
  await mkdir(folder);
  await chown(folder, uid, uid);
  return `${folder}/clones`;
}
