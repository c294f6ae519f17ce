// A folder becomes a template, beside mke2fs -d alone.
import { randomFillSync } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ONE_SAMPLE, seededRandom } from '../alternate.mjs';
import { run } from '../command.mjs';
import { formatBytes } from '../format.mjs';
import { atMostTimes } from '../targets.mjs';
import { timeNs } from '../timing.mjs';

const MiB = 2 ** 20;

/** @type {import('./index.mjs').Measure} */
export const publish = {
  name: 'publish',
  title: 'publishStack of a folder',
  filesystems: ['ext4'],
  full: { rounds: 5, seconds: 240 },
  quick: undefined,
  turn: ONE_SAMPLE,
  warmUps: 1,
  targets: [atMostTimes('library', 1.2, 'mke2fs -d')],
  async contestants(workspace) {
    const { RootfsRegistry } = workspace.library;
    const folder = await workspace.newFolder('publish');
    const tree = join(folder, 'tree');
    const dataBytes = 1024 * MiB;
    const files = await makeTree(tree, dataBytes);
    const registry = new RootfsRegistry({
      templateDir: join(folder, 'templates'),
      clonesDir: join(folder, 'vms'),
    });
    workspace.onEnd(() => registry.close());
    const image = join(folder, 'image');
    // As long as the library makes it if it is not told.
    const { sizeBytes } = await registry.publishStack('tree', tree);
    return {
      about: `${formatBytes(dataBytes)} in ${files} files, an image of ${formatBytes(sizeBytes)}`,
      contestants: [
        {
          name: 'library',
          does: 'publishStack(name, folder, { replace: true })',
          sample: () => timeNs(() => registry.publishStack('tree', tree, { replace: true })),
        },
        {
          name: 'mke2fs -d',
          does: 'mke2fs -d FOLDER IMAGE of that size, and sync of the image',
          async sample() {
            await rm(image, { force: true });
            return timeNs(async () => {
              await run('mke2fs', [
                '-q',
                '-F',
                '-t',
                'ext4',
                '-b',
                '4096',
                '-d',
                tree,
                image,
                `${sizeBytes / 4096}`,
              ]);
              await run('sync', [image]);
            });
          },
        },
      ],
    };
  },
};

/**
 * Files as a distribution has them: most of them small, a few large.
 * @param {string} path
 * @param {number} dataBytes
 */
async function makeTree(path, dataBytes) {
  const random = seededRandom(3);
  const pool = randomFillSync(Buffer.alloc(32 * MiB));
  let files = 0;
  for (let left = dataBytes; left > 0; files++) {
    const folder = join(path, `${files % 200}`);
    if (files < 200) await mkdir(folder, { recursive: true });
    const most = random() < 0.02 ? 16 * MiB : 128 * 1024;
    const length = Math.min(left, Math.ceil(random() * most));
    await writeFile(join(folder, `${files}`), pool.subarray(0, length));
    left -= length;
  }
  return files;
}
