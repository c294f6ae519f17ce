// Descriptors that only the garbage collector closes run out under load: it does not know that they are dear.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { readdir, readlink, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { runChild } from '../fixtures/child.js';
import { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';

const FILESYSTEMS = ['XFS', 'ext4'] as const;

function folderOn(name: string): string {
  return inject('filesystems').find((filesystem) => filesystem.name === name)?.path || inject('scratch');
}

/** What this process has open below a folder. */
async function openBelow(folder: string): Promise<string[]> {
  const descriptors = await readdir('/proc/self/fd');
  const paths = await Promise.all(
    descriptors.map((fd) => readlink(join('/proc/self/fd', fd)).catch(() => '')),
  );
  return paths.filter((path) => path.startsWith(folder));
}

test.each(FILESYSTEMS)('none stay open after close: %s', async (name) => {
  const host = await Host.in(folderOn(name));
  await host.addTemplate('debian', 'debian');
  await host.addExt4Template('ext4', 4 * MiB);
  await host.registry.cloneForVm('a', 'debian', { writable: true });
  await host.registry.cloneForVm('b', 'ext4', { writable: false });
  await host.registry.cloneForVmWithSize('b', 'ext4', 8 * MiB);
  await host.registry.cloneForVmWithSize('c', 'ext4', 8 * MiB);
  await host.registry.cloneForVm('a', 'debian', { mode: 0o640 });
  await host.registry.release('a');
  await host.registry.recover();
  await host.registry.close();
  expect(await openBelow(host.root)).toEqual([]);
});

test.each(FILESYSTEMS)(
  'nor of a clones folder that was moved away or removed meanwhile: %s',
  async (name) => {
    const host = await Host.in(folderOn(name));
    await host.addTemplate('debian', 'debian');
    const away = `${host.clonesDir}.away`;
    await host.registry.cloneForVm('a', 'debian', { writable: true });
    await rename(host.clonesDir, away);
    await host.registry.cloneForVm('a', 'debian', { writable: true });
    await rm(host.clonesDir, { recursive: true });
    await host.registry.cloneForVm('a', 'debian', { writable: true });
    await host.registry.close();
    expect(await openBelow(host.root)).toEqual([]);
    expect(await readdir(join(away, 'a'))).toContain('rootfs.ext4');
  },
);

test.each(FILESYSTEMS)('a clone leaves none open: %s', async (name) => {
  const host = await Host.in(folderOn(name));
  await host.addTemplate('debian', 'debian');
  await host.registry.cloneForVm('first', 'debian', { writable: true });
  await host.registry.drain();
  const before = (await openBelow(host.root)).length;
  for (let i = 0; i < 20; i++) await host.registry.cloneForVm(`vm-${i}`, 'debian', { writable: true });
  await host.registry.drain();
  expect((await openBelow(host.root)).length).toBe(before);
});

/** In a process of its own. */
async function worksWithDescriptors(limit: number, host: Host, work: string): Promise<void> {
  const { stdout, stderr } = await runChild(
    `const registry = new lib.RootfsRegistry(args);
     ${work}
     await registry.close();
     console.log('done');`,
    { templateDir: host.templateDir, clonesDir: host.clonesDir },
    { under: ['prlimit', `--nofile=${limit}:${limit}`] },
  );
  expect(stderr).toBe('');
  expect(stdout).toBe('done\n');
}

test.each(FILESYSTEMS)('300 clones with a limit of 100 descriptors: %s', async (name) => {
  const host = await Host.in(folderOn(name));
  await host.addTemplate('debian', 'debian');
  await worksWithDescriptors(
    100,
    host,
    "for (let i = 0; i < 300; i++) await registry.cloneForVm('vm-' + i, 'debian', { writable: true });",
  );
});

test.each(FILESYSTEMS)('300 clones and restores at once with 200 descriptors: %s', async (name) => {
  const host = await Host.in(folderOn(name));
  await host.addTemplate('debian', 'debian');
  await host.registry.cloneForVm('first', 'debian', { writable: true });
  await host.registry.snapshotSlot('first', 'snapshot');
  await worksWithDescriptors(
    200,
    host,
    `const options = { writable: true };
     const ids = Array.from({ length: 300 }, (_, i) => 'vm-' + i);
     await registry.cloneForVm('first', 'debian', options);
     await Promise.all(ids.map((id) => registry.cloneForVm(id, 'debian', options)));
     const many = (prefix) => ids.map((id) => ({ vmId: prefix + id, stack: 'debian', options }));
     const made = await Promise.all([registry.cloneMany(many('a')), registry.cloneMany(many('b'))]);
     for (const { reason } of made.flat()) if (reason !== undefined) throw reason;
     await Promise.all(ids.map((id) => registry.restoreSnapshot('snapshot', 'r-' + id)));`,
  );
});

test.each(FILESYSTEMS)('clones of 115 stacks with a limit of 200 descriptors: %s', async (name) => {
  const host = await Host.in(folderOn(name));
  for (let i = 0; i < 115; i++) await host.addTemplate(`stack-${i}`, `${i}`);
  await worksWithDescriptors(
    200,
    host,
    `const stacks = (await registry.stacks()).map(({ name }) => name);
     await Promise.all(stacks.map((name) => registry.stack(name)));
     for (const name of stacks) await registry.cloneForVm(name, name, { writable: true });`,
  );
});

test.each(FILESYSTEMS)('recover() settles 300 slots with a limit of 100 descriptors: %s', async (name) => {
  const host = await Host.in(folderOn(name));
  await host.addTemplate('debian', 'debian');
  const ids = Array.from({ length: 300 }, (_, i) => `vm-${i}`);
  const marks = ids.map((id) => `${host.slot(id).image}.unsettled`);
  const requests = ids.map((vmId) => ({ vmId, stack: 'debian', options: { writable: true } }));
  await host.registry.cloneMany(requests);
  await host.registry.close();
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'ascii').trim();
  for (const mark of marks) writeFileSync(mark, boot);
  await worksWithDescriptors(100, host, 'await registry.recover();');
  expect(marks.filter((mark) => existsSync(mark))).toEqual([]);
});

test.each(FILESYSTEMS)(
  '80 calls at once with a limit of 200 descriptors: %s',
  { timeout: 120_000 },
  async (name) => {
    const host = await Host.in(folderOn(name));
    await host.addExt4Template('ext4', 4 * MiB);
    const { stdout, stderr } = await runChild(
      `const { mkdirSync, writeFileSync } = require('node:fs');
     const { out, snapshotsDir, ...folders } = args;
     mkdirSync(out);
     const registry = new lib.RootfsRegistry({ ...folders, snapshotsDir });
     const ids = Array.from({ length: 80 }, (_, i) => 'vm-' + i);
     for (const id of ids) await registry.cloneForVm(id, 'ext4', { writable: true });
     const files = ids.map((id) => out + '/file-' + id);
     for (const file of files) writeFileSync(file, file);
     const all = (call) => Promise.all(ids.map(call));
     await lib.hashFiles([...files, ...files, ...files]);
     await Promise.all([...files, ...files, ...files].map((file) => lib.hashFile(file)));
     await all((id) => registry.exportTo(id, out + '/' + id));
     await all((id) => registry.forkSlot(id, 'of-' + id));
     await all((id) => registry.snapshotSlot(id, id));
     await all((id) => registry.verifySnapshot(id));
     await all((id) => registry.restoreSnapshot(id, 'r-' + id));
     await all((id) => registry.removeSnapshot(id));
     await all((id) => registry.cloneForVmWithSize(id, 'ext4', 8 * 2 ** 20, { writable: true }));
     await registry.close();
     console.log('done');`,
      {
        templateDir: host.templateDir,
        clonesDir: host.clonesDir,
        snapshotsDir: `${host.root}/snapshots`,
        out: `${host.root}/out`,
      },
      { under: ['prlimit', '--nofile=200:200'] },
    );
    expect(stderr).toBe('');
    expect(stdout).toBe('done\n');
  },
);
