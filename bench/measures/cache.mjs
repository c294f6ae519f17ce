// Many hosts pull at once through a registry that caches, and what the origin has to send then.
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ONE_SAMPLE } from '../alternate.mjs';
import { output } from '../command.mjs';
import { fleetOf } from '../fleet/fleet.mjs';
import { copyPackages, upTo } from '../fleet/packages.mjs';
import { formatBytes, formatNs } from '../format.mjs';
import { startOciRegistry } from '../oci-registry.mjs';
import { atMostTimes } from '../targets.mjs';
import { timeNs } from '../timing.mjs';

const MiB = 2 ** 20;
const CHILD = new URL('../children/pull-many.mjs', import.meta.url).pathname;
const PROCESSES = 5;
const ONE = 'one cold pull';
const MANY = 'through a cache';

/** @type {import('./index.mjs').Measure} */
export const cache = {
  name: 'cache',
  title: 'bytes that the origin sends for 50 pulls at once',
  filesystems: ['xfs'],
  unit: 'bytes',
  full: { rounds: 1, seconds: 60 },
  quick: { rounds: 1, seconds: 1 },
  turn: ONE_SAMPLE,
  warmUps: 0,
  targets: [atMostTimes(MANY, 1.2, ONE)],
  async contestants(workspace) {
    const fleet = await fleetOf(workspace);
    const { registry: origin } = fleet;
    const pulls = workspace.quick ? 10 : 50;
    const reference = `${origin.host}/bench/small:1`;
    const { sizeBytes, uploadedBytes } = await pushSmall(fleet, reference, (workspace.quick ? 16 : 48) * MiB);

    let took = 0;
    let lastOfMany = 0;
    /**
     * @param {number} processes
     * @param {number} each
     * @param {string[]} mirror
     */
    const pull = async (processes, each, mirror) => {
      const folder = await workspace.newFolder('hosts');
      await workspace.settle();
      await origin.traffic();
      took = await timeNs(() =>
        Promise.all(
          Array.from({ length: processes }, async (_, i) => {
            const place = join(folder, `${i}`);
            await mkdir(place);
            const args = [workspace.libraryFolder, place, `${each}`, reference, ...mirror];
            await output(process.execPath, [CHILD, ...args]);
          }),
        ),
      );
      await rm(folder, { recursive: true });
      return (await origin.traffic()).bytes;
    };
    return {
      about:
        `${pulls} catalogs in ${PROCESSES} processes; a small template, of ${formatBytes(sizeBytes)}, ` +
        `${formatBytes(uploadedBytes)} compressed, so that all of them fit on one machine`,
      contestants: [
        {
          name: ONE,
          does: 'pullStack into one empty catalog, without a cache',
          sample: () => pull(1, 1, []),
        },
        {
          name: MANY,
          does: `${pulls} × pullStack, docker-registry as an empty pull-through cache in mirrors`,
          async sample() {
            const proxy = `proxy: { remoteurl: http://${origin.host} }`;
            const mirror = await startOciRegistry(workspace, { config: proxy });
            const bytes = await pull(PROCESSES, pulls / PROCESSES, [mirror.host]);
            lastOfMany = took;
            await mirror.stop();
            return bytes;
          },
          note: () => `${formatNs(lastOfMany)} for all`,
        },
      ],
    };
  },
};

/**
 * @param {import('../fleet/fleet.mjs').Fleet} fleet
 * @param {string} reference
 * @param {number} bytes
 */
async function pushSmall(fleet, reference, bytes) {
  const { folder, registry, end } = fleet.host('small');
  const tree = join(folder, 'tree');
  await mkdir(tree, { recursive: true });
  await copyPackages(upTo(bytes, fleet.packages), tree);
  const { sizeBytes } = await registry.publishStack('small', tree);
  const { uploadedBytes } = await registry.pushStack('small', reference);
  await end();
  return { sizeBytes, uploadedBytes };
}
