// Pulling a template from a registry on the same host, into a catalog that is empty, beside the tools that anybody has.
import { readFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ONE_SAMPLE } from '../alternate.mjs';
import { run } from '../command.mjs';
import { fleetOf } from '../fleet/fleet.mjs';
import { formatBytes } from '../format.mjs';
import { fetchWithSkopeo, packsOf } from '../peers/whole-image.mjs';
import { atMostTimes } from '../targets.mjs';
import { timeNs } from '../timing.mjs';

/** @typedef {import('../workspace.mjs').Workspace} Workspace */

const FLOOR = 'curl, zstd -d, openssl dgst';
const SKOPEO = 'skopeo copy, zstd -d';
const effort = /** @type {const} */ ({
  filesystems: ['xfs'],
  full: { rounds: 5, seconds: 240 },
  quick: undefined,
  turn: ONE_SAMPLE,
  warmUps: 1,
});

/** @type {import('./index.mjs').Measure} */
export const pull = /** @type {any} */ ({
  ...effort,
  name: 'pull',
  together: 'fleet',
  title: 'cold pull of a template',
  targets: [atMostTimes('library', 1.25, FLOOR), atMostTimes('library', 1, SKOPEO)],
  contestants: (/** @type {Workspace} */ workspace) => pullers(workspace, timeNs),
});

/** @type {import('./index.mjs').Measure} */
export const pullProcessors = /** @type {any} */ ({
  ...effort,
  name: 'pull-processors',
  together: 'fleet',
  title: 'processor time of a cold pull',
  full: { rounds: 2, seconds: 120 },
  warmUps: 0,
  targets: [],
  contestants: (/** @type {Workspace} */ workspace) => pullers(workspace, processorNs),
});

/**
 * @param {Workspace} workspace
 * @param {(work: () => Promise<unknown>) => Promise<number>} measured
 */
async function pullers(workspace, measured) {
  const fleet = await fleetOf(workspace);
  const { host } = fleet.registry;
  const { name: tag, reference, about, uploadedBytes } = await fleet.version('cold');
  const packs = await packsOf(host, 'bench/system', tag);
  const urls = join(fleet.folder, 'urls');
  await writeFile(
    urls,
    packs.map((hex) => `url = "http://${host}/v2/bench/system/blobs/sha256:${hex}"`).join('\n'),
  );
  return {
    about: `a template of ${about}, ${formatBytes(uploadedBytes)} compressed, from the same host`,
    contestants: [
      {
        name: 'library',
        does: 'pullStack into an empty catalog; e2fsck and a digest of the whole included',
        async sample() {
          const { registry, end } = fleet.host();
          await workspace.settle();
          const ns = await measured(() => registry.pullStack(reference));
          await end();
          return ns;
        },
      },
      {
        name: FLOOR,
        does: 'curl of the same packs | zstd -d | openssl dgst -sha256: nothing is kept',
        sample: () => measured(() => shell(`curl -sS -K ${urls} | zstd -dcq | openssl dgst -sha256`)),
      },
      {
        name: SKOPEO,
        does: 'skopeo copy of the artifact into a folder, then cat of its packs | zstd -d into a file',
        async sample() {
          const place = join(fleet.folder, 'skopeo');
          await workspace.settle();
          const ns = await measured(() => fetchWithSkopeo(reference, packs, place));
          await rm(place, { recursive: true });
          return ns;
        },
      },
    ],
  };
}

/** @param {string} command */
function shell(command) {
  return run('bash', ['-o', 'pipefail', '-ec', command]);
}

/**
 * Of this process and of the programs that it has waited for.
 * @param {() => Promise<unknown>} work
 */
async function processorNs(work) {
  const before = ticks();
  await work();
  return ((ticks() - before) * 1e9) / 100;
}

/** In hundredths of a second: Linux tells them to programs in these on every architecture that Node runs on. */
function ticks() {
  const fields = readFileSync('/proc/self/stat', 'utf8').split(') ')[1]?.split(' ') ?? [];
  return fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
}
