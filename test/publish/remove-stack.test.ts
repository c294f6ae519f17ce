import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, open, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test, vi } from 'vitest';
import { type NativeLockedSlot, native } from '../../src/addon/native.js';
import { imageConfigPath } from '../../src/catalog/image-config.js';
import { Templates } from '../../src/catalog/templates.js';
import { runChild } from '../fixtures/child.js';
import { exists, readRange, sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

test('a stack with clones is not removed, and the error names some of them', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  await host.addTemplate('alpine', 'alpine');
  for (let i = 0; i < 7; i++) await host.registry.cloneForVm(`vm/${i}`, 'debian');
  await host.registry.cloneForVm('other', 'alpine');
  const error = await rejection(host.registry.removeStack('debian'), 'STACK_IN_USE');
  expect(error.message).toContain('7 clones');
  expect(error.message).toMatch(/"vm\/\d", .*and 2 more/);
  expect(error.message).not.toContain('other');
  expect(await exists(host.template('debian'))).toBe(true);
});

test('a clone that was made while the lock was waited for keeps the stack', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  const { handle } = await native().openFolder(host.templateDir);
  const locked = await native().lockSlot(handle, 'debian', true);
  const removed = rejection(host.registry.removeStack('debian'), 'STACK_IN_USE');
  await host.anotherRegistry().cloneForVm('vm', 'debian', { writable: true });
  native().dispose(locked as NativeLockedSlot);
  await removed;
  expect(await exists(host.template('debian'))).toBe(true);
  await native().closeFolder(handle);
});

test("an image that came after none was found is nobody's to remove without force", async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  const look = vi.spyOn(Templates.prototype, 'look').mockResolvedValue(undefined);
  onTestFinished(() => look.mockRestore());
  expect(await host.registry.removeStack('debian')).toBe(false);
  expect(await exists(host.template('debian'))).toBe(true);
});

test('force removes it all the same, and its clones stay whole', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  const { path, sourceSha256 } = await host.registry.cloneForVm('vm', 'debian');
  expect(await host.registry.removeStack('debian', { force: true })).toBe(true);
  expect(await exists(dirname(host.template('debian')))).toBe(false);
  expect(await sha256Of(path)).toBe(sourceSha256);
  await rejection(host.registry.cloneForVm('vm', 'debian'), 'STACK_NOT_FOUND');
  expect(await host.registry.release('vm')).toBe(true);
});

test('it is removed once its clones are released, and clones of what it was before do not count', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'old');
  await host.registry.cloneForVm('old', 'debian', { writable: true });
  await host.addTemplate('debian', 'new');
  await host.registry.cloneForVm('new', 'debian', { writable: true });
  await rejection(host.registry.removeStack('debian'), 'STACK_IN_USE');
  await host.registry.release('new');
  expect(await host.anotherRegistry().removeStack('debian')).toBe(true);
  expect(await host.registry.stack('debian')).toBeUndefined();
});

test('a folder that is linked to is left as it is, and the error tells that it is a link', async () => {
  const host = await Host.in();
  await mkdir(join(host.root, 'elsewhere'));
  await symlink('../elsewhere', join(host.templateDir, 'debian'));
  await host.addTemplate('debian', 'debian');
  const error = await rejection(host.registry.removeStack('debian'), 'TEMPLATE_INVALID');
  expect(error).toMatchObject({
    path: join(host.templateDir, 'debian'),
    message: expect.stringContaining('symbolic link'),
  });
  expect(await exists(host.template('debian'))).toBe(true);
});

test('other files in its folder stay, and so does the folder', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  const notes = join(dirname(host.template('debian')), 'NOTES');
  await writeFile(notes, 'keep me');
  expect(await host.registry.removeStack('debian')).toBe(true);
  expect(await exists(host.template('debian'))).toBe(false);
  expect(await exists(notes)).toBe(true);
  expect(await host.registry.removeStack('debian')).toBe(false);
  const image = join(host.root, 'image');
  await writeFile(image, 'x');
  await rejection(host.registry.publishStack('debian', image), 'IMAGE_INVALID');
  expect(await exists(notes)).toBe(true);
});

test('who has the image open keeps it', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  const reader = await open(host.template('debian'), 'r');
  expect(await host.registry.removeStack('debian')).toBe(true);
  expect((await reader.read(Buffer.alloc(6), 0, 6, 0)).buffer.toString()).toBe('debian');
  await reader.close();
});

test('what is not there is not removed, and nothing is made for it', async () => {
  const host = await Host.in();
  await mkdir(join(host.templateDir, 'empty'));
  expect(await host.registry.removeStack('nothing')).toBe(false);
  expect(await host.registry.removeStack('empty')).toBe(false);
  expect(await exists(join(host.templateDir, '.microvm-rootfs'))).toBe(false);
  expect(await exists(host.clonesDir)).toBe(false);
  await rejection(host.registry.removeStack('../x'), 'INVALID_STACK_NAME');
  await rejection(host.registry.removeStack('x', { now: true } as object), 'INVALID_ARGUMENT');
  await rejection(host.registry.removeStack('x', { signal: AbortSignal.abort() }), 'ABORT_ERR');
});

test('what the registry knew and had made of it goes: the next image of that name is cloned as it is', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'first');
  await host.registry.prewarm('debian', { count: 3 });
  expect(await host.registry.removeStack('debian')).toBe(true);
  await host.addTemplate('debian', 'second');
  const { path } = await host.registry.cloneForVm('vm', 'debian', { writable: true });
  expect((await readRange(path, 0, 100)).toString()).toBe('second');
});

test('an image that another publisher puts there meanwhile keeps its config', async () => {
  const host = await Host.in();
  const path = await host.addTemplate('debian', 'old');
  const next = join(host.root, 'next');
  await mkdir(next);
  await writeFile(join(next, 'rootfs.ext4'), 'new');
  const digest = await sha256Of(join(next, 'rootfs.ext4'));
  await writeFile(imageConfigPath(join(next, 'rootfs.ext4'), digest), '{"user":"new"}');
  const { stdout, stderr } = await runChild(
    `const fs = require('node:fs/promises');
     const unlink = fs.unlink;
     fs.unlink = async (path) => {
       await unlink(path);
       if (path === args.path) await fs.rename(args.next, require('node:path').dirname(path));
     };
     const registry = new lib.RootfsRegistry(args.config);
     console.log(await registry.removeStack('debian'));
     await registry.close();`,
    { config: host.registry.config, path, next },
  );
  expect(stderr).toBe('');
  expect(stdout).toBe('true\n');
  expect((await host.registry.stack('debian'))?.image).toEqual({ user: 'new' });
});

test('what a killed publisher left goes with it, and configs of any image', async () => {
  const host = await Host.in();
  const path = await host.addTemplate('debian', 'debian');
  await writeFile(join(dirname(path), '.rootfs.ext4.incoming'), 'half of an image');
  await writeFile(imageConfigPath(path, 'a'.repeat(64)), '{}');
  expect(await host.registry.removeStack('debian')).toBe(true);
  expect(await readdir(host.templateDir)).not.toContain('debian');
});

test('what a call that was killed left goes with the next, which finds no image', async () => {
  const host = await Host.in();
  const path = await host.addTemplate('debian', 'debian');
  const folder = dirname(path);
  await host.registry.removeStack('debian');
  await mkdir(folder);
  expect(await host.registry.removeStack('debian')).toBe(false);
  expect(await exists(folder)).toBe(false);
  for (const name of ['.rootfs.ext4.incoming', `rootfs.ext4.${'a'.repeat(64)}.json`]) {
    await mkdir(folder);
    await writeFile(join(folder, name), '{}');
    expect(await host.registry.removeStack('debian', { force: true })).toBe(false);
    expect(await exists(folder)).toBe(false);
    await mkdir(folder);
    await writeFile(join(folder, name), '{}');
    await writeFile(join(folder, 'NOTES'), 'keep me');
    expect(await host.registry.removeStack('debian')).toBe(false);
    expect(await readdir(folder)).toEqual(['NOTES']);
    await rm(folder, { recursive: true });
  }
});

test.for(['stack', 'catalog'])(
  "a flush of the %s's folder that fails is told, and the same call flushes",
  async (which, { skip }) => {
    const reason = lacks('strace') ?? lacksRoot();
    if (reason !== undefined) skip(reason);
    const host = await Host.in();
    const path = await host.addTemplate('debian', 'debian');
    const flushed = which === 'catalog' ? host.templateDir : dirname(path);
    const remove = async (...inject: string[]) => {
      const log = join(host.root, 'log');
      const under = ['strace', '-f', '-qqq', '-o', log, '-e', 'trace=fsync', '-P', flushed, ...inject];
      const { stdout } = await runChild(
        `const registry = new lib.RootfsRegistry(args.config);
       await registry.removeStack('debian', { force: true }).then(console.log, (e) => console.log(e.message));
       await registry.close();`,
        { config: host.registry.config },
        { under },
      );
      return { stdout, calls: await readFile(log, 'utf8') };
    };
    const { stdout } = await remove('-e', 'inject=fsync:error=EIO:when=1');
    expect(stdout).toMatch(`fsync ${flushed} failed with EIO; it is done, but not flushed`);
    expect(await exists(path)).toBe(false);
    const again = await remove();
    expect(again.stdout).toBe('false\n');
    expect(again.calls).toContain('fsync(');
    expect(await exists(dirname(path))).toBe(false);
  },
);

test('a folder that comes and goes all the time fails no call', async () => {
  const host = await Host.in();
  // The catalog is managed from then on.
  await host.addTemplate('debian', 'debian');
  expect(await host.registry.removeStack('debian', { force: true })).toBe(true);
  const folder = dirname(host.template('debian'));
  const script =
    'const fs = require("node:fs"); const [folder] = process.argv.slice(1);' +
    'for (;;) { try { fs.mkdirSync(folder); fs.rmdirSync(folder); } catch {} }';
  const child = spawn(process.execPath, ['-e', script, folder]);
  onTestFinished(() => void child.kill('SIGKILL'));
  await once(child, 'spawn');
  await sleep(200);
  for (let round = 0; round < 300; round++) expect(await host.registry.removeStack('debian')).toBe(false);
});
