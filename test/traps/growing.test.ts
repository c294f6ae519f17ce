import { execFileSync } from 'node:child_process';
import { chmod, copyFile, mkdir, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { readSuperblock } from '../../src/image/ext4.js';
import { resizeExt4Image } from '../../src/index.js';
import { printed, startChild } from '../fixtures/child.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { exists, sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { dumpSuperblock, faultsOf, GiB, MiB, makeExt4Image, readInside, run } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacksRoot } from '../fixtures/tools.js';
import { newWorkspace } from '../fixtures/workspace.js';

const WRITABLE = { writable: true } as const;

async function failingProgram(host: Host): Promise<string> {
  const program = join(host.root, 'failing-resize2fs');
  await writeFile(program, '#!/bin/sh\necho "out of luck" >&2\nexit 1\n');
  await chmod(program, 0o755);
  return program;
}

describeEachFilesystem((filesystem) => {
  test('after resize2fs failed the retry grows the filesystem, and the size stamp follows only then', async () => {
    const host = await Host.in(filesystem.path);
    await host.addExt4Template('debian', 16 * MiB);
    await host.registry.cloneForVm('earlier', 'debian', WRITABLE);
    const failing = host.anotherRegistry({ resize2fsBin: await failingProgram(host) });
    for (const id of ['new', 'earlier']) {
      await rejection(failing.cloneForVmWithSize(id, 'debian', 48 * MiB), 'RESIZE_FAILED');
      expect(await exists(host.slot(id).sizeStamp)).toBe(false);
      const { path } = await host.registry.cloneForVmWithSize(id, 'debian', 48 * MiB);
      expect((await readSuperblock(path))?.sizeBytes).toBe(48 * MiB);
      expect(await faultsOf(path)).toBe('');
    }
  });

  test('a copy that resize2fs damages is not handed out, and the error names its source and the size', async () => {
    const host = await Host.in(filesystem.path);
    await host.addExt4Template('debian', 16 * MiB, ['-O', 'orphan_file']);
    const { path } = await host.registry.cloneForVm('earlier', 'debian', WRITABLE);
    const resize2fsBin = join(host.root, 'damaging-resize2fs');
    const damage = `debugfs -w -R 'clri <2>' "$3" 2>/dev/null`;
    await writeFile(resize2fsBin, `#!/bin/sh\n/sbin/resize2fs "$@" && ${damage}\n`, { mode: 0o755 });
    const registry = host.anotherRegistry({ resize2fsBin });
    const sources = { new: host.template('debian'), earlier: path };
    for (const [id, source] of Object.entries(sources)) {
      const error = await rejection(registry.cloneForVmWithSize(id, 'debian', 48 * MiB), 'E2FSCK_FAILED');
      expect(error.path).toBe(source);
      expect(error.message).toContain(`on ${source}: `);
      expect(error.message).toContain(
        `resize2fs grew to ${48 * MiB} bytes: if e2fsck -fn ${source} finds nothing`,
      );
      expect(error.message).not.toContain('.microvm-rootfs');
      expect(await exists(host.slot(id).sizeStamp)).toBe(false);
    }
  });
});

test('a raw image whose grow failed has its old length; the retry grows the filesystem', async () => {
  const host = await Host.in();
  const image = join(host.root, 'image.ext4');
  await makeExt4Image(image, 16 * MiB);
  const resize2fsBin = await failingProgram(host);
  await rejection(resizeExt4Image(image, 48 * MiB, { resize2fsBin }), 'RESIZE_FAILED');
  expect((await stat(image)).size).toBe(16 * MiB);
  expect((await readSuperblock(image))?.sizeBytes).toBe(16 * MiB);
  await rejection(resizeExt4Image(image, 48 * MiB, { resize2fsBin }), 'RESIZE_FAILED');
  await resizeExt4Image(image, 48 * MiB);
  expect((await readSuperblock(image))?.sizeBytes).toBe(48 * MiB);
});

test('killed while resize2fs runs: no slot, and the same call works', async () => {
  const host = await Host.in();
  await host.addExt4Template('debian', 16 * MiB);
  const slow = join(host.root, 'slow-resize2fs');
  await writeFile(slow, `#!/bin/sh\necho $$ > ${host.root}/pid\nexec sleep 60\n`, { mode: 0o755 });
  const child = startChild(
    `const registry = new lib.RootfsRegistry(args);
     registry.cloneForVmWithSize('vm-1', 'debian', ${48 * MiB});
     const timer = setInterval(() => {
       if (require('fs').existsSync(${JSON.stringify(`${host.root}/pid`)})) { clearInterval(timer); console.log('growing'); }
     }, 5);
     setInterval(() => {}, 1000);`,
    { templateDir: host.templateDir, clonesDir: host.clonesDir, resize2fsBin: slow },
  );
  await printed(child, 'growing');
  const gone = new Promise((resolve) => child.on('exit', resolve));
  child.kill('SIGKILL');
  await gone;
  expect(await host.slotNames()).toEqual([]);
  const { path } = await host.registry.cloneForVmWithSize('vm-1', 'debian', 48 * MiB);
  expect(await faultsOf(path)).toBe('');
  await host.registry.recover();
  expect(await host.leftovers()).toEqual([]);
  execFileSync('sh', ['-c', `kill $(cat ${host.root}/pid)`]);
});

test('a template whose filesystem is longer than its file is refused: resize2fs would silently shrink it', async () => {
  const host = await Host.in();
  const template = await host.placeTemplate('debian', async (path) => {
    await makeExt4Image(path, 64 * MiB);
    await truncate(path, 32 * MiB);
  });
  const digest = await sha256Of(template);
  for (const sizeBytes of [48 * MiB, 128 * MiB]) {
    const grow = host.registry.cloneForVmWithSize('vm-1', 'debian', sizeBytes);
    expect(await rejection(grow, 'TEMPLATE_CORRUPT')).toMatchObject({
      path: template,
      message: expect.stringContaining(`the filesystem in ${template} says it has ${64 * MiB} bytes`),
    });
  }
  expect(await host.slotNames()).toEqual([]);
  expect(await host.leftovers()).toEqual([]);
  expect(await sha256Of(template)).toBe(digest);
  await rejection(resizeExt4Image(template, 48 * MiB), 'TEMPLATE_CORRUPT');
  expect(await sha256Of(template)).toBe(digest);
});

test('a template with a journal to replay is mended on our own copy, never in place', async ({ skip }) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(`${reason}, to mount an image`);
  const host = await Host.in();
  const work = newWorkspace();
  // As a template is that was copied while it was still mounted.
  const live = work.image('live', ['mke2fs', '-q', '-F', '-t', 'ext4', '-b', '4096'], 64 * MiB);
  const folder = work.mount('mounted', ['-o', 'loop', live]);
  await mkdir(join(folder, 'etc'));
  await writeFile(join(folder, 'etc/hostname'), 'journalled\n', { flush: true });
  execFileSync('sync', ['-f', folder]);
  const template = await host.placeTemplate('debian', (path) => copyFile(live, path));
  expect((await run('dumpe2fs', ['-h', template])).stdout).toContain('needs_recovery');
  const digest = await sha256Of(template);

  const { path } = await host.registry.cloneForVmWithSize('vm-1', 'debian', 256 * MiB);
  expect(await faultsOf(path)).toBe('');
  expect((await run('dumpe2fs', ['-h', path])).stdout).not.toContain('needs_recovery');
  expect(await readInside(path, '/etc/hostname')).toBe('journalled\n');
  expect(await sha256Of(template)).toBe(digest);
});

test('a template that was filled through a mount and never checked since grows', async () => {
  const host = await Host.in();
  const template = await host.placeTemplate('debian', async (path) => {
    await makeExt4Image(path, 16 * MiB);
    await run('debugfs', ['-w', '-R', 'ssv mtime 20380101', path]);
  });
  const digest = await sha256Of(template);
  const { path } = await host.registry.cloneForVmWithSize('vm-1', 'debian', 48 * MiB);
  expect((await readSuperblock(path))?.sizeBytes).toBe(48 * MiB);
  expect(await sha256Of(template)).toBe(digest);
});

test.each([
  [16 * MiB, 20 * GiB],
  [32 * MiB, 40 * GiB],
  [64 * MiB, 100 * GiB],
])('a small image grown far, which one step would damage: %i to %i', async (from, to) => {
  const host = await Host.in();
  await host.addExt4Template('debian', from, ['-b', '4096']);
  const { path } = await host.registry.cloneForVmWithSize('vm-1', 'debian', to);
  expect((await dumpSuperblock(path)).blockCount).toBe(to / 4096);
  expect(await faultsOf(path)).toBe('');
  expect(await readInside(path, '/etc/hostname')).toBe('microvm\n');
});

// 400 KiB cannot hold a block group's tables, so resize2fs leaves that tail out, and cuts it off the file.
test('a target whose last block group would be too small', async () => {
  const host = await Host.in();
  await host.addExt4Template('debian', 16 * MiB, ['-b', '4096']);
  const target = 128 * MiB + 400 * 1024;
  const clone = await host.registry.cloneForVmWithSize('vm-1', 'debian', target);
  expect((await stat(clone.path)).size).toBe(target);
  expect(await faultsOf(clone.path)).toBe('');
  expect(await host.registry.cloneForVmWithSize('vm-1', 'debian', target)).toMatchObject({ reused: true });
});

test('resize2fs and e2fsck are found although PATH lacks /usr/sbin, as for a plain user', async () => {
  const host = await Host.in();
  await host.placeTemplate('debian', async (path) => {
    await makeExt4Image(path, 16 * MiB);
    await run('debugfs', ['-w', '-R', 'ssv mtime 20380101', path]);
  });
  vi.stubEnv('PATH', '/usr/bin:/bin');
  try {
    expect((await host.registry.cloneForVmWithSize('vm-1', 'debian', 48 * MiB)).sizeBytes).toBe(48 * MiB);
  } finally {
    vi.unstubAllEnvs();
  }
});

test('resize2fs that is nowhere: the error names it and the package that ships it', async () => {
  const host = await Host.in();
  await host.addExt4Template('debian', 16 * MiB);
  const registry = host.anotherRegistry({ resize2fsBin: 'no-such-resize2fs' });
  const error = await rejection(
    registry.cloneForVmWithSize('vm-1', 'debian', 48 * MiB),
    'RESIZE2FS_NOT_FOUND',
  );
  expect(error.message).toContain('no-such-resize2fs');
  expect(error.message).toContain('e2fsprogs');
  expect(await host.slotNames()).toEqual([]);
  expect(await host.leftovers()).toEqual([]);
});
