// What stays in memory after many clones.
import { ONCE } from '../alternate.mjs';
import { output } from '../command.mjs';
import { formatBytes, formatCount } from '../format.mjs';
import { atMost } from '../targets.mjs';

const MiB = 2 ** 20;
const CHILD = new URL('../children/clone-release-memory.mjs', import.meta.url).pathname;

/** @type {import('./index.mjs').Measure} */
export const memory = {
  name: 'memory',
  title: 'growth of resident memory over clone and release pairs',
  filesystems: ['xfs'],
  unit: 'bytes',
  ...ONCE,
  targets: [atMost('library', 16 * MiB, formatBytes)],
  async contestants(workspace) {
    const { stack, about } = await workspace.template('one-extent');
    const pairs = workspace.quick ? 2000 : 20_000;
    const { libraryFolder, templateDir, clonesDir } = workspace;
    const args = ['--expose-gc', CHILD, libraryFolder, templateDir, clonesDir, stack, String(pairs)];
    return {
      about: `${about}; ${formatCount(pairs)} pairs`,
      contestants: [
        {
          name: 'library',
          does:
            `${pairs} × cloneForVm and release, one after the other, in a process of its own; after ` +
            'garbage collection',
          sample: async () => Number(await output(process.execPath, args)),
        },
      ],
    };
  },
};
