// Any source becomes a raw image in a work folder, or is refused by what it is. How each format is read is tested
// elsewhere.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, rename, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, inject, onTestFinished, test } from 'vitest';
import { native } from '../../src/addon/native.js';
import { ManagedFolder } from '../../src/folder/managed-folder.js';
import type { PublishOptions } from '../../src/publish/publish-options.js';
import { stageImage } from '../../src/publish/source-image.js';
import { Task } from '../../src/system/task.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { allocatedBytes, sha256, sha256Of, writeSparse } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern, run } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';

async function stagingIn(folder = inject('scratch')) {
  const { root, templateDir } = await Host.in(folder);
  const managed = new ManagedFolder(templateDir);
  onTestFinished(() => managed.close());
  /** Resolves to what is told and made, and to what is left in the work folder. */
  const stage = (source: string, options: PublishOptions = {}, whenOpened?: () => Promise<void>) =>
    managed.inWorkFolder('publish', async (workFolder, open) => {
      const image = join(workFolder, 'image');
      const opened = whenOpened && (await native().openSource(source));
      await whenOpened?.();
      try {
        const task = new Task('a test', options.signal);
        const settings = { mke2fsBin: 'mke2fs', registries: {}, checkRegistry: undefined };
        const staging = { task, folder: open, source, opened, workFolder, image, options, ...settings };
        const { format } = await stageImage(staging);
        const left = await readdir(workFolder);
        return { format, left, sha256: await sha256Of(image), blocks: await allocatedBytes(image) };
      } finally {
        if (opened !== undefined) native().dispose(opened.source);
        expect(await readdir(workFolder)).not.toContain('input');
      }
    });
  return { root, stage, templateDir };
}

const CHOSEN = ['XFS', 'ext4', 'FUSE (fuse2fs)'];

describeEachFilesystem(
  (filesystem) => {
    test('a raw file is copied with its holes, and a compressed one gets them back', async () => {
      const { root, stage } = await stagingIn(filesystem.path);
      const source = join(root, 'source');
      // Larger than the gaps that are filled.
      await writeSparse(source, 18 * MiB, { 0: pattern(4096), [17 * MiB]: pattern(4096, 2) });
      await run('zstd', ['-q', source, '-o', `${source}.zst`]);
      const staged = [await stage(source), await stage(`${source}.zst`)];
      expect(staged.map(({ format }) => format)).toEqual(['raw', 'zstd']);
      for (const each of staged) expect(each).toMatchObject({ sha256: staged[0]?.sha256, left: ['image'] });
      if (filesystem.seekHole) for (const { blocks } of staged) expect(blocks).toBeLessThan(2 * MiB);
    });
  },
  ({ name }) => CHOSEN.includes(name),
);

test('a link is followed, and what the caller has open is read, whatever has its name', async () => {
  const { root, stage } = await stagingIn();
  const source = join(root, 'source');
  await writeFile(source, 'raw');
  await symlink('source', join(root, 'link'));
  expect(await stage(join(root, 'link'))).toMatchObject({ format: 'raw', sha256: sha256('raw') });
  const replace = () => rename(join(root, 'link'), source);
  expect(await stage(source, {}, replace)).toMatchObject({ format: 'raw', sha256: sha256('raw') });
});

test('the format that is told is believed over the first bytes', async () => {
  const { root, stage } = await stagingIn();
  const source = join(root, 'source');
  const compressed = gzipSync('within');
  await writeFile(source, compressed);
  expect(await stage(source, { format: 'raw' })).toMatchObject({ format: 'raw', sha256: sha256(compressed) });
  expect(await stage(source)).toMatchObject({ format: 'gzip', left: ['image'], sha256: sha256('within') });
  await rejection(stage(source, { format: 'qcow2' }), 'IMAGE_INVALID');
  await rejection(stage(source, { format: 'tar' }), 'IMAGE_INVALID');
});

test.each<[what: string, options: PublishOptions, from: 'file' | 'folder', words: string]>([
  ['a platform of a file', { platform: 'linux/amd64' }, 'file', 'platform is for container images'],
  ['a platform of a folder', { platform: 'linux/amd64' }, 'folder', 'platform is for container images'],
  ['a size of an image', { sizeBytes: 4096 }, 'file', 'an image keeps its size'],
  ['a file as a folder', { format: 'folder' }, 'file', 'is no folder, format says folder'],
  ['a folder as a tar', { format: 'tar' }, 'folder', 'is a folder, format says tar'],
])('%s is refused by name', async (_, options, from, words) => {
  const { root, stage } = await stagingIn();
  const source = join(root, 'source');
  if (from === 'file') await writeFile(source, 'raw');
  else await mkdir(source);
  const error = await rejection(stage(source, options), 'INVALID_ARGUMENT');
  expect(error).toMatchObject({ path: source });
  expect(error.message).toContain(words);
});

test('a format of a container image is refused, and standard input is no folder', async () => {
  const { root, stage } = await stagingIn();
  const layout = `oci:${root}`;
  expect((await rejection(stage(layout, { format: 'tar' }), 'INVALID_ARGUMENT')).message).toContain(
    'format is for files',
  );
  const error = await rejection(stage('-', { format: 'folder' }), 'INVALID_ARGUMENT');
  expect(error.message).toContain('standard input is not a folder');
});

test('a socket, a device and a pipe are told apart, and none of them is opened for ever', async () => {
  const { root, stage } = await stagingIn();
  const [socket, pipe] = [join(root, 'socket'), join(root, 'pipe')];
  const server = createServer().listen(socket);
  onTestFinished(() => void server.close());
  await once(server, 'listening');
  await once(spawn('mkfifo', [pipe]), 'close');
  for (const path of [socket, '/dev/null'])
    expect((await rejection(stage(path), 'INVALID_ARGUMENT')).message).toContain(
      'neither a regular file nor a folder',
    );
  expect((await rejection(stage(pipe), 'INVALID_ARGUMENT')).message).toContain(
    'is a pipe, not a regular file',
  );
});

test('what is not there, a folder around the catalog, and an abort', async () => {
  const { root, stage, templateDir } = await stagingIn();
  await expect(stage(join(root, 'none'))).rejects.toMatchObject({ code: 'ENOENT' });
  for (const folder of [root, templateDir]) await rejection(stage(folder), 'INVALID_ARGUMENT');
  const source = join(root, 'source');
  await writeFile(source, gzipSync(pattern(MiB)));
  await rejection(stage(source, { signal: AbortSignal.abort() }), 'ABORT_ERR');
});
