// Reading everything again: rot is found and named, and what only looks like it is not.
import { rmSync, truncateSync, writeFileSync } from 'node:fs';
import {
  chmod,
  link,
  mkdir,
  open,
  readdir,
  readFile,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { native } from '../../src/addon/native.js';
import { RootfsRegistry } from '../../src/index.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { exists, sha256 } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { whileHashing } from '../fixtures/while-hashing.js';

const BYTES = pattern(MiB);
const WRITABLE = { writable: true } as const;

/** Changes a byte as a dying disk does: the file's size and times stay. */
async function rot(path: string): Promise<void> {
  const { atime, mtime, mode } = await stat(path);
  await chmod(path, 0o600);
  const file = await open(path, 'r+');
  await file.write(Buffer.of((BYTES[1000] as number) ^ 1), 0, 1, 1000);
  await file.close();
  await chmod(path, mode);
  await utimes(path, atime, mtime);
}

/** Gives the file blocks of its own. */
async function unshare(path: string): Promise<void> {
  const bytes = await readFile(path);
  await truncate(path, 0);
  await writeFile(path, bytes);
}

async function sealedImage(host: Host): Promise<string> {
  const folder = join(host.clonesDir, '.microvm-rootfs/sealed');
  const [name = ''] = await readdir(folder);
  return join(folder, name, 'rootfs.ext4');
}

describeEachFilesystem((filesystem) => {
  test('nothing differs where nothing was changed', async () => {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('debian', BYTES);
    await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    const seen: number[] = [];
    const report = await host.registry.verify({
      clones: true,
      onProgress: ({ bytesDone, bytesTotal }) => seen.push(bytesDone / bytesTotal),
    });
    expect(report).toEqual({
      templates: 1,
      sealedImages: filesystem.reflinks ? 1 : 0,
      clones: filesystem.reflinks ? 0 : 1,
      templatesNotRead: [],
      differences: [],
    });
    expect(seen.at(-1)).toBe(1);
    expect([...seen].sort((a, b) => a - b)).toEqual(seen);
  });

  test('a clone that was written to, and only on request', async () => {
    const host = await Host.in(filesystem.path, { sealing: 'off' });
    await host.addTemplate('debian', BYTES);
    const { path } = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    await rot(path);
    expect((await host.registry.verify()).differences).toEqual([]);
    const { differences } = await host.registry.verify({ clones: true });
    if (!filesystem.reflinks) {
      expect(differences).toMatchObject([{ kind: 'clone', path, expected: sha256(BYTES) }]);
    }
  });
});

describeEachFilesystem(
  (filesystem) => {
    test('a sealed image that rotted, or has gone', async () => {
      const host = await Host.in(filesystem.path);
      await host.addTemplate('debian', BYTES);
      await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
      const path = await sealedImage(host);
      await rot(path);
      expect((await host.registry.verify()).differences).toMatchObject([{ kind: 'sealed image', path }]);
      await rm(path);
      const { differences } = await host.registry.verify();
      expect(differences).toMatchObject([{ kind: 'sealed image', path, found: 'nothing' }]);
    });

    test('sealed images that go with their template before their turn comes are no difference', async () => {
      const host = await Host.in(filesystem.path);
      await host.addExt4Template('debian', 16 * MiB);
      await host.registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB, WRITABLE);
      whileHashing(() =>
        rmSync(join(host.clonesDir, '.microvm-rootfs/sealed'), { recursive: true, force: true }),
      );
      expect(await host.registry.verify()).toMatchObject({ templates: 1, sealedImages: 0, differences: [] });
    });

    test('a grown sealed image is checked for what it must be', async () => {
      const host = await Host.in(filesystem.path);
      await host.addExt4Template('debian', 16 * MiB);
      await host.registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB, WRITABLE);
      expect(await host.registry.verify()).toMatchObject({ sealedImages: 2, differences: [] });
    });

    test('sealed images that a backup gave a second name, for a while, are as they were', async () => {
      const host = await Host.in(filesystem.path);
      await host.addExt4Template('debian', 16 * MiB);
      await host.registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB, WRITABLE);
      const sealed = join(host.clonesDir, '.microvm-rootfs/sealed');
      const links: string[] = [];
      for (const name of await readdir(sealed)) {
        links.push(join(host.root, name));
        await link(join(sealed, name, 'rootfs.ext4'), join(host.root, name));
      }
      expect(links).toHaveLength(2);
      expect(await host.registry.verify()).toMatchObject({ sealedImages: 2, differences: [] });
      for (const path of links) await rm(path);
      expect(await host.registry.verify()).toMatchObject({ sealedImages: 2, differences: [] });
    });

    test.each([
      ['is killed', 'kill -KILL $$'],
      ['is older than the image', 'echo "has unsupported feature(s): FEATURE_C12" >&2; exit 12'],
    ])('an e2fsck that %s says nothing about the image', async (_, body) => {
      const host = await Host.in(filesystem.path);
      const e2fsckBin = join(host.root, 'other-e2fsck');
      await writeFile(e2fsckBin, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
      await host.addExt4Template('debian', 16 * MiB);
      await host.registry.cloneForVmWithSize('vm-1', 'debian', 32 * MiB, WRITABLE);
      const registry = new RootfsRegistry({ ...host.registry.config, e2fsckBin });
      await rejection(registry.verify(), 'E2FSCK_FAILED');
    });
  },
  ({ reflinks }) => reflinks,
);

test('a clone that its guest made as long as it could is not read', async () => {
  const host = await Host.in(undefined, { sealing: 'off' });
  await host.addTemplate('debian', BYTES);
  const { path } = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  await truncate(path, 2 ** 40);
  expect(await host.registry.verify({ clones: true })).toMatchObject({
    clones: 1,
    differences: [{ kind: 'clone', path, found: `${2 ** 40} bytes rather than ${MiB}` }],
  });
});

test('a clone of endless length whose template is gone is not read', async () => {
  const host = await Host.in(undefined, { sealing: 'off' });
  await host.addTemplate('debian', BYTES);
  const long = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  const whole = await host.registry.cloneForVm('vm-2', 'debian', WRITABLE);
  for (const { path } of [long, whole]) await unshare(path);
  await host.registry.removeStack('debian', { force: true });
  await truncate(long.path, 2 ** 43);
  expect(await host.registry.verify({ clones: true })).toMatchObject({
    clones: 2,
    differences: [
      { kind: 'clone', path: long.path, found: expect.stringContaining(`not read: ${2 ** 43} bytes`) },
    ],
  });
});

test('a clone that its guest makes longer before its turn comes is not read', async () => {
  const host = await Host.in(undefined, { sealing: 'off' });
  await host.addTemplate('debian', BYTES);
  const { path } = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  await unshare(path);
  whileHashing(() => truncateSync(path, 2 ** 43));
  expect(await host.registry.verify({ clones: true })).toMatchObject({
    templates: 1,
    clones: 0,
    differences: [],
  });
});

test('templates that are removed or replaced before their turn comes are no difference', async () => {
  const host = await Host.in();
  await host.addTemplate('a', BYTES);
  const removed = await host.addTemplate('b', BYTES);
  const replaced = await host.addTemplate('c', BYTES);
  await host.registry.stacks();
  whileHashing(() => {
    rmSync(removed, { force: true });
    rmSync(replaced, { force: true });
    writeFileSync(replaced, pattern(2 * MiB));
  });
  expect(await host.registry.verify()).toEqual({
    templates: 1,
    sealedImages: 0,
    clones: 0,
    templatesNotRead: [replaced],
    differences: [],
  });
});

test('an abort while slots are looked at ends it', async () => {
  const host = await Host.in(undefined, { sealing: 'off' });
  await host.addTemplate('debian', BYTES);
  const vms = Array.from({ length: 40 }, (_, i) => ({ vmId: `vm-${i}`, stack: 'debian', options: WRITABLE }));
  await host.registry.cloneMany(vms);
  const controller = new AbortController();
  const { inspectSlots } = native();
  const inspected = vi.spyOn(native(), 'inspectSlots').mockImplementation((...given) => {
    controller.abort();
    return inspectSlots(...given);
  });
  onTestFinished(() => inspected.mockRestore());
  await rejection(host.registry.verify({ clones: true, signal: controller.signal }), 'ABORT_ERR');
  expect(inspected).toHaveBeenCalledOnce();
});

test('wrong arguments, and an abort', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', BYTES);
  await host.registry.stacks();
  for (const options of [{ clones: 1 }, { onProgress: 1 }, { other: 1 }])
    await rejection(host.registry.verify(options as never), 'INVALID_ARGUMENT');
  await rejection(host.registry.verify({ signal: AbortSignal.abort() }), 'ABORT_ERR');
  expect(await exists(host.clonesDir)).toBe(false);
});

test('a template that was changed, or that nobody looked at, is named as not read', async () => {
  const host = await Host.in();
  const path = await host.addTemplate('debian', BYTES);
  await host.addTemplate('new', BYTES);
  await mkdir(join(host.templateDir, 'lost+found'));
  await host.registry.stack('debian');
  await rot(path);
  const { templates, templatesNotRead } = await host.registry.verify();
  expect(templates).toBe(0);
  expect([...templatesNotRead].sort()).toEqual([host.template('debian'), host.template('new')].sort());
});
