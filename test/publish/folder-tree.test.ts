// The mark of a folder, by which publishing tells that somebody wrote to it.
import { appendFile, chmod, link, mkdir, open, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { DEFAULT_LIMITS } from '../../src/publish/publish-options.js';
import { markOfFolder } from '../../src/publish/tree/folder-tree.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { KiB } from '../fixtures/images.js';

const READING = { limits: DEFAULT_LIMITS, includeMounts: false, otherTimeNs: 0n, checkAborted: () => {} };

async function newFolder(path: string): Promise<string> {
  const { root } = await Host.in(path);
  const folder = join(root, 'tree');
  await mkdir(join(folder, 'etc'), { recursive: true });
  await writeFile(join(folder, 'etc/hosts'), 'one\n');
  return folder;
}

describeEachFilesystem(
  ({ path }) => {
    test('a file that the file system lays out only now is no change', async () => {
      const folder = await newFolder(path);
      const scattered = await open(join(folder, 'scattered'), 'w');
      for (let i = 0; i < 1500; i++)
        await scattered.write(Buffer.alloc(4 * KiB, 1), 0, 4 * KiB, i * 12 * KiB);
      const { blocks } = await scattered.stat();
      const mark = await markOfFolder(folder, READING);
      await scattered.sync();
      if (path.endsWith('ext4')) expect((await scattered.stat()).blocks).not.toBe(blocks);
      await scattered.close();
      expect(await markOfFolder(folder, READING)).toBe(mark);
    });

    test.for<[string, (folder: string) => Promise<unknown>]>([
      ['written to', (folder) => appendFile(join(folder, 'etc/hosts'), 'two\n')],
      ['overwritten, its time put back', (folder) => overwrite(join(folder, 'etc/hosts'))],
      ['given another mode', (folder) => chmod(join(folder, 'etc/hosts'), 0o600)],
      ['renamed', (folder) => rename(join(folder, 'etc/hosts'), join(folder, 'etc/host'))],
      ['removed', (folder) => rm(join(folder, 'etc/hosts'))],
      ['linked beside itself', (folder) => link(join(folder, 'etc/hosts'), join(folder, 'etc/again'))],
    ])('a file that is %s is one', async ([, change]) => {
      const folder = await newFolder(path);
      const mark = await markOfFolder(folder, READING);
      await change(folder);
      expect(await markOfFolder(folder, READING)).not.toBe(mark);
    });
  },
  ({ name }) => ['XFS', 'btrfs', 'ext4'].includes(name),
);

async function overwrite(path: string): Promise<void> {
  // Times may lag behind by a tick.
  await new Promise((resolve) => setTimeout(resolve, 20));
  const file = await open(path, 'r+');
  const { atime, mtime } = await file.stat();
  await file.write('two\n');
  await file.utimes(atime, mtime);
  await file.close();
}
