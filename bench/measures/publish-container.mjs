// A container image becomes a template, beside the same programs run by hand.
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ONE_SAMPLE } from '../alternate.mjs';
import { output } from '../command.mjs';
import { fleetOf } from '../fleet/fleet.mjs';
import { bytesOf, copyPackages, upTo } from '../fleet/packages.mjs';
import { formatBytes } from '../format.mjs';
import { atMostTimes } from '../targets.mjs';
import { timeNs } from '../timing.mjs';

const MiB = 2 ** 20;
const BY_HAND = 'skopeo, umoci, mke2fs -d';
const LAYERS = 3;

/** @type {import('./index.mjs').Measure} */
export const publishContainer = {
  name: 'publish-container',
  together: 'fleet',
  title: 'publishStack of a container image',
  filesystems: ['xfs'],
  full: { rounds: 3, seconds: 120 },
  quick: { rounds: 1, seconds: 1 },
  turn: ONE_SAMPLE,
  warmUps: 0,
  targets: [atMostTimes('library', 1.2, BY_HAND)],
  async contestants(workspace) {
    const fleet = await fleetOf(workspace);
    const folder = await workspace.newFolder('container');
    const packages = upTo((workspace.quick ? 24 : 300) * MiB, fleet.packages);
    await makeLayers(folder, packages);
    const { registry } = fleet.host('container');
    workspace.onEnd(() => registry.close());
    const source = `oci:${folder}/image:latest`;
    // As long as the library makes it if it is not told.
    const { sizeBytes } = await registry.publishStack('container', source);
    const byHand = `skopeo copy -q oci:image:latest oci:copied:latest
      umoci raw unpack --image copied:latest unpacked
      mke2fs -q -F -t ext4 -b 4096 -d unpacked made ${sizeBytes / 4096}
      sync made`;
    return {
      about:
        `${LAYERS} layers of gzip with ${formatBytes(bytesOf(packages))} of files, ` +
        `an image of ${formatBytes(sizeBytes)}`,
      contestants: [
        {
          name: 'library',
          does: "publishStack(name, 'oci:DIR:TAG', { replace: true })",
          async sample() {
            await workspace.settle();
            return timeNs(() => registry.publishStack('container', source, { replace: true }));
          },
        },
        {
          name: BY_HAND,
          does: 'skopeo copy oci:, umoci raw unpack, mke2fs -d of that size, and sync of the image',
          async sample() {
            await workspace.settle();
            const ns = await timeNs(() => output('bash', ['-ec', `cd ${folder}; ${byHand}`]));
            for (const name of ['copied', 'unpacked', 'made'])
              await rm(join(folder, name), { recursive: true });
            return ns;
          },
        },
      ],
    };
  },
};

/**
 * @param {string} folder where to make the layout `image`
 * @param {import('../fleet/packages.mjs').Package[]} packages
 */
async function makeLayers(folder, packages) {
  const layout = join(folder, 'image');
  await output('umoci', ['init', '--layout', layout]);
  await output('umoci', ['new', '--image', `${layout}:latest`]);
  for (let layer = 0; layer < LAYERS; layer++) {
    const tree = join(folder, 'layer');
    await mkdir(tree);
    await copyPackages(
      packages.filter((_, i) => i % LAYERS === layer),
      tree,
    );
    await output('tar', ['-C', tree, '--numeric-owner', '-cf', `${tree}.tar`, '.']);
    await output('umoci', ['raw', 'add-layer', '--image', `${layout}:latest`, `${tree}.tar`]);
    await rm(tree, { recursive: true });
    await rm(`${tree}.tar`);
  }
}
