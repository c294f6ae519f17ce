// Listing a catalog whose digests are known.
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { formatNs } from '../format.mjs';
import { atMost } from '../targets.mjs';
import { timeNs } from '../timing.mjs';

const COUNT = 1000;

/** @type {import('./index.mjs').Measure} */
export const stacks = {
  name: 'stacks',
  title: `stacks() of ${COUNT} known stacks`,
  filesystems: ['xfs'],
  full: { rounds: 50, seconds: 10 },
  quick: { rounds: 3, seconds: 0.5 },
  targets: ['library', 'library, new registry'].map((way) => atMost(way, 30e6, formatNs)),
  async contestants(workspace) {
    const { RootfsRegistry } = workspace.library;
    const templateDir = await workspace.newFolder('catalog');
    const clonesDir = await workspace.newFolder('catalog-vms');
    for (let i = 0; i < COUNT; i++) {
      const folder = join(templateDir, `stack-${i}`);
      await mkdir(folder);
      await writeFile(join(folder, 'rootfs.ext4'), `image ${i}`);
    }
    await workspace.settle();
    const config = { templateDir, clonesDir };
    const registry = new RootfsRegistry(config);
    workspace.onEnd(() => registry.close());
    const list = async (/** @type {any} */ from) => {
      const found = await from.stacks();
      if (found.length !== COUNT) throw new Error(`${found.length} stacks`);
    };
    await list(registry);
    return {
      about: `${COUNT} folders`,
      contestants: [
        { name: 'library', does: 'stacks() again', sample: () => timeNs(() => list(registry)) },
        {
          name: 'library, new registry',
          does: 'stacks() of a registry made for it',
          async sample() {
            const fresh = new RootfsRegistry(config);
            const ns = await timeNs(() => list(fresh));
            await fresh.close();
            return ns;
          },
        },
      ],
    };
  },
};
