import { chmod, mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test, vi } from 'vitest';
import { runChild } from '../fixtures/child.js';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { exists, sha256 } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { mountDead } from '../fixtures/mounts.js';
import { rejection } from '../fixtures/rejection.js';
import { lacksRoot } from '../fixtures/tools.js';

test("names are sorted by their UTF-8 bytes, not by JavaScript's UTF-16", async () => {
  const host = await Host.in();
  // U+FF5E comes before U+1F980 in UTF-8 and after it in UTF-16.
  for (const name of ['b', 'a', 'B', 'é', '🦀', '～', 'a-b', 'a.b']) await host.addTemplate(name, name);
  const names = (await host.registry.stacks()).map(({ name }) => name);
  expect(names).toEqual(['B', 'a', 'a-b', 'a.b', 'b', 'é', '～', '🦀']);
});

test('skipped: folders without an image, plain files, dot-folders, undecodable names, images that are no regular files', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  await mkdir(join(host.templateDir, 'empty'));
  await writeFile(join(host.templateDir, 'plain-file'), '');
  await mkdir(join(host.templateDir, '.hidden'));
  await writeFile(join(host.templateDir, '.hidden', 'rootfs.ext4'), '');
  const undecodable = Buffer.concat([Buffer.from(`${host.templateDir}/`), Buffer.from([0x66, 0xff])]);
  await mkdir(undecodable);
  await writeFile(Buffer.concat([undecodable, Buffer.from('/rootfs.ext4')]), '');
  await mkdir(join(host.templateDir, 'image-is-a-folder', 'rootfs.ext4'), { recursive: true });
  await mkdir(join(host.templateDir, 'dangling'));
  await symlink('nowhere', host.template('dangling'));
  for (const [name, target] of [
    ['loop', 'rootfs.ext4'],
    ['long', 'x'.repeat(300)],
  ] as const) {
    await mkdir(join(host.templateDir, name));
    await symlink(target, host.template(name));
  }
  expect((await host.registry.stacks()).map(({ name }) => name)).toEqual(['debian']);
});

test('an image behind a symbolic link is a template', async () => {
  const host = await Host.in();
  await writeFile(join(host.root, 'golden.ext4'), 'golden');
  await mkdir(join(host.templateDir, 'debian'));
  await symlink(join(host.root, 'golden.ext4'), host.template('debian'));
  expect(await host.registry.stack('debian')).toMatchObject({ sizeBytes: 6, sha256: sha256('golden') });
});

test('a template folder that is a file is an error, not an empty catalog', async () => {
  const host = await Host.in();
  await rm(host.templateDir, { recursive: true });
  await writeFile(host.templateDir, '');
  const error = await rejection(host.registry.stacks(), 'ENOTDIR');
  expect(error.path).toBe(host.templateDir);
});

test('what may not be read hides nothing else: the list leaves it out and warns of it, by its name it is an error', async ({
  skip,
}) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(`${reason}, to become another user`);
  const host = await Host.in();
  await chmod(host.root, 0o755);
  await host.addTemplate('debian', 'debian');
  await chmod(await host.addTemplate('secret', 'secret'), 0o600);
  // In the root folder of each ext4 file system.
  await mkdir(join(host.templateDir, 'lost+found'), { mode: 0o700 });
  await mkdir(join(host.templateDir, 'closed'), { mode: 0o700 });
  const child = await runChild(
    `process.on('warning', ({ code, message }) => console.log(code, message.split(' ')[1]));
     const registry = new lib.RootfsRegistry(args);
     for (const round of [1, 2]) console.log((await registry.stacks()).map(({ name }) => name).join());
     await registry.stack('secret').catch((error) => console.log(error.code, error.path));
     await new Promise(setImmediate);`,
    { templateDir: host.templateDir, clonesDir: host.clonesDir },
    { under: ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'] },
  );
  expect(child.stdout.trim().split('\n').sort()).toEqual([
    `EACCES ${host.template('secret')}`,
    'MICROVM_ROOTFS_STACK_UNREADABLE closed',
    'MICROVM_ROOTFS_STACK_UNREADABLE secret',
    'debian',
    'debian',
  ]);
});

test('a mount whose server has died hides no other stack, and verify names it', async ({ skip }) => {
  const reason = lacksRoot() ?? ((await exists('/dev/fuse')) ? undefined : 'there is no /dev/fuse');
  if (reason !== undefined) skip(reason);
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  await mkdir(join(host.templateDir, 'dead'));
  await mountDead(join(host.templateDir, 'dead'));
  const warnings = vi.spyOn(process, 'emitWarning').mockReturnValue();
  expect((await host.registry.stacks()).map(({ name }) => name)).toEqual(['debian']);
  expect(warnings.mock.calls.map(([message]) => message)).toEqual([
    expect.stringMatching(/^stack dead is left out: .*ENOTCONN; .*umount -l/),
  ]);
  warnings.mockRestore();
  await rejection(host.registry.stack('dead'), 'ENOTCONN');
  expect(await host.registry.verify()).toMatchObject({
    templates: 1,
    templatesNotRead: [host.template('dead')],
  });
});

test('a list that lacks descriptors fails, and leaves out no stack', async () => {
  const host = await Host.in();
  for (const name of ['a', 'b', 'c']) await host.addTemplate(name, name);
  const child = await runChild(
    `const registry = new lib.RootfsRegistry(args);
     const open = [];
     try { for (;;) open.push(fs.openSync('/dev/null')); } catch {}
     fs.closeSync(open.pop());
     await registry.stacks().catch(({ code }) => console.log(code));`,
    { templateDir: host.templateDir, clonesDir: host.clonesDir },
    { under: ['prlimit', '--nofile=100'] },
  );
  expect(child.stdout).toBe('EMFILE\n');
});

test('a stack by name whose image is no regular file says so', async () => {
  const host = await Host.in();
  await mkdir(host.template('debian'), { recursive: true });
  expect((await rejection(host.registry.stack('debian'), 'TEMPLATE_INVALID')).path).toBe(
    host.template('debian'),
  );
});

test('an empty image is no template, whichever way it is asked for', async () => {
  const host = await Host.in();
  const path = await host.addTemplate('debian', '');
  const { registry } = host;
  const WRITABLE = { writable: true } as const;
  for (const call of [
    () => registry.stack('debian'),
    () => registry.cloneForVm('vm-1', 'debian', WRITABLE),
    () => registry.cloneForVmWithSize('vm-1', 'debian', 1 << 20, WRITABLE),
    () => registry.prewarm('debian', { count: 1 }),
  ])
    expect((await rejection(call(), 'TEMPLATE_INVALID')).path).toBe(path);
  const [one] = await registry.cloneMany([{ vmId: 'vm-1', stack: 'debian', options: WRITABLE }]);
  expect(one).toMatchObject({ status: 'rejected', reason: { code: 'TEMPLATE_INVALID' } });
  expect(await host.slotNames()).toEqual([]);
});

test('a name too long for a folder is refused', async () => {
  const host = await Host.in();
  await rejection(host.registry.stack('s'.repeat(300)), 'INVALID_STACK_NAME');
  const { message } = await rejection(host.registry.stack(undefined as never), 'INVALID_STACK_NAME');
  expect(message).toBe('invalid stack name undefined: it must be a string');
});

test('many templates are listed at once', async () => {
  const host = await Host.in();
  const names = Array.from({ length: 100 }, (_, i) => `stack-${String(i).padStart(3, '0')}`);
  for (const name of names) await host.addTemplate(name, name);
  const stacks = await host.registry.stacks();
  expect(stacks.map(({ name }) => name)).toEqual(names);
  expect(stacks.every(({ name, sha256: digest }) => digest === sha256(name))).toBe(true);
});

test('the next registry knows the digests, whatever their number, and sees what is new, changed or gone', async () => {
  const host = await Host.in();
  const names = Array.from({ length: 300 }, (_, i) => `stack-${String(i).padStart(3, '0')}`);
  for (const name of names) await host.addTemplate(name, name);
  await host.registry.cloneForVm('vm-1', 'stack-000', { writable: true });
  await host.registry.stacks();
  await host.registry.close();
  await host.addTemplate('stack-001', 'changed');
  await host.addTemplate('stack-300', 'new');
  await rm(host.template('stack-002'));
  await mkdir(host.template('stack-002'));
  const stacks = await host.anotherRegistry().stacks();
  const digests = Object.fromEntries(stacks.map(({ name, sha256: digest }) => [name, digest]));
  expect(stacks).toHaveLength(300);
  expect(digests['stack-000']).toBe(sha256('stack-000'));
  expect(digests['stack-001']).toBe(sha256('changed'));
  expect(digests['stack-002']).toBeUndefined();
  expect(digests['stack-300']).toBe(sha256('new'));
});

test('an abort ends listing', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  await rejection(host.registry.stacks({ signal: AbortSignal.abort() }), 'ABORT_ERR');
  await rejection(host.registry.stack('debian', { signal: AbortSignal.abort() }), 'ABORT_ERR');
});

test('a slot that tells a stack of no legal name is looked at all the same', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
  await writeFile(join(host.slot('vm-1').path, 'rootfs.ext4.stack'), '../etc');
  expect(await host.registry.slot('vm-1')).toMatchObject({ vmId: 'vm-1', health: 'whole' });
});

test('of two stacks with the same bytes, one that goes takes no clone of the other along', async () => {
  const host = await Host.in(filesystemNamed('XFS').path);
  for (let round = 0; round < 12; round++) {
    const bytes = `${round}`.repeat(30_000);
    for (const name of ['a', 'b']) await host.addTemplate(`${name}-${round}`, bytes);
    const clones = ['a', 'b'].map((name) =>
      host.registry.cloneForVm(`vm-${name}-${round}`, `${name}-${round}`, { writable: true }),
    );
    await sleep(round / 4);
    await rm(host.template(`a-${round}`));
    const [, other] = await Promise.allSettled(clones);
    expect(other).toMatchObject({ status: 'fulfilled' });
  }
});
