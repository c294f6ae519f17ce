// Listing a large catalog in a process that has never seen it, when another one has.
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ONE_SAMPLE } from '../alternate.mjs';
import { output } from '../command.mjs';
import { formatNs } from '../format.mjs';
import { atMost } from '../targets.mjs';
import { timeNs } from '../timing.mjs';

const COUNT = 12_000;
const CHILD = new URL('../children/stacks.mjs', import.meta.url).pathname;

/** @type {import('./index.mjs').Measure} */
export const stacksNewProcess = {
  name: 'stacks-new-process',
  title: `stacks() of ${COUNT} known stacks in a new process`,
  filesystems: ['xfs', 'btrfs'],
  full: { rounds: 15, seconds: 30 },
  quick: undefined,
  turn: ONE_SAMPLE,
  warmUps: 1,
  targets: [atMost('library', COUNT * 40e3, formatNs)],
  async contestants(workspace) {
    const folder = await workspace.newFolder('many-stacks');
    const templateDir = join(folder, 'templates');
    const clonesDir = join(folder, 'vms');
    await mkdir(clonesDir);
    for (let i = 0; i < COUNT; i++) {
      const stack = join(templateDir, `stack-${i}`);
      await mkdir(stack, { recursive: true });
      await writeFile(join(stack, 'rootfs.ext4'), `image ${i}`);
      await writeFile(join(stack, 'digest'), '0'.repeat(64));
    }
    await workspace.settle();
    const registry = new workspace.library.RootfsRegistry({ templateDir, clonesDir });
    await registry.stacks();
    await registry.close();
    const args = [CHILD, workspace.libraryFolder, templateDir, clonesDir, String(COUNT)];
    return {
      about: `${COUNT} folders`,
      contestants: [
        {
          name: 'library',
          does: 'stacks(), once, in a process of its own; its start is not counted',
          sample: async () => Number(await output(process.execPath, args)),
        },
        {
          name: 'fs.promises',
          does: 'readdir; of each stack stat of the image, and readFile of a digest kept beside it, believed as it is',
          sample: () =>
            timeNs(async () => {
              for (const name of await readdir(templateDir)) {
                await stat(join(templateDir, name, 'rootfs.ext4'));
                await readFile(join(templateDir, name, 'digest'), 'utf8');
              }
            }),
        },
      ],
    };
  },
};
