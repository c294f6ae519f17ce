// Pulls over links with 1, 10 and 100 ms from a request to its answer: of a template, and of an upgrade of it.
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ONE_SAMPLE } from '../alternate.mjs';
import { fleetOf } from '../fleet/fleet.mjs';
import { startOciRegistry } from '../oci-registry.mjs';
import { fetchWithSkopeo, packsOf, pushWhole } from '../peers/whole-image.mjs';
import { atMostTimes } from '../targets.mjs';
import { timeNs } from '../timing.mjs';

/** @typedef {import('../workspace.mjs').Workspace} Workspace */

const ROUND_TRIPS_MS = [1, 10, 100];
const COLD = 'library, cold';
const UPDATE = 'library, update';
const SKOPEO_COLD = 'skopeo, cold';
const SKOPEO_UPDATE = 'skopeo, update';

/** @type {import('./index.mjs').Measure[]} */
export const latencies = ROUND_TRIPS_MS.map((roundTripMs) => ({
  name: `latency-${roundTripMs}ms`,
  together: 'fleet',
  title: `pulls with ${roundTripMs} ms of round trip`,
  filesystems: ['xfs'],
  full: { rounds: 2, seconds: 60 },
  quick: { rounds: 1, seconds: 1 },
  turn: ONE_SAMPLE,
  warmUps: 0,
  targets: [atMostTimes(COLD, 1, SKOPEO_COLD), atMostTimes(UPDATE, 1, SKOPEO_UPDATE)],
  contestants: (workspace) => overLink(workspace, roundTripMs),
}));

/**
 * @param {Workspace} workspace
 * @param {number} roundTripMs
 */
async function overLink(workspace, roundTripMs) {
  const fleet = await fleetOf(workspace);
  const { about, name: tag, reference: cold } = await fleet.version('cold');
  const { name: newTag, image } = await fleet.version('anew');
  const whole = await pushWhole(image, fleet.registry.host, 'bench/whole', newTag);
  const packs = await packsOf(fleet.registry.host, 'bench/system', tag);

  const far = await startFarRegistry(workspace, fleet.registry.data, roundTripMs);
  const reference = (/** @type {string} */ name) => `${far.host}/bench/system:${name}`;
  const insecure = { [far.host]: { insecure: true } };
  const updating = fleet.host(`updating-${roundTripMs}ms`, insecure);
  workspace.onEnd(() => updating.end());
  const skopeo = (/** @type {string} */ from, /** @type {string[]} */ blobs) => async () => {
    const place = join(fleet.folder, 'skopeo');
    await workspace.settle();
    const ns = await timeNs(() => fetchWithSkopeo(from, blobs, place));
    await rm(place, { recursive: true });
    return ns;
  };
  return {
    about:
      `a template of ${about}; ${fleet.aboutUpgrade}; packets of 1,500 bytes between two network namespaces ` +
      '(bench/floor/slow-link.c)',
    contestants: [
      {
        name: COLD,
        does: 'pullStack into an empty catalog',
        async sample() {
          const { registry, end } = fleet.host(undefined, insecure);
          await workspace.settle();
          const ns = await timeNs(() => registry.pullStack(reference(tag)));
          await end();
          return ns;
        },
      },
      {
        name: SKOPEO_COLD,
        does: 'skopeo copy of the artifact into a folder, then cat of its packs | zstd -d into a file',
        sample: skopeo(reference(tag), packs),
      },
      {
        name: UPDATE,
        does: 'pullStack of the upgrade, made anew, where the template before is',
        async sample() {
          // Over the short way: not timed.
          await updating.registry.pullStack(cold, { replace: true });
          await workspace.settle();
          return timeNs(() => updating.registry.pullStack(reference(newTag), { replace: true }));
        },
      },
      {
        name: SKOPEO_UPDATE,
        does: 'skopeo copy of the upgraded image as one zstd blob, then zstd -d into a file',
        sample: skopeo(`${far.host}/bench/whole:${newTag}`, [whole]),
      },
    ],
  };
}

/**
 * @param {Workspace} workspace
 * @param {string} data
 * @param {number} roundTripMs
 */
function startFarRegistry(workspace, data, roundTripMs) {
  // A network of its own for each, also if the benchmark runs twice at once.
  const network = `10.231.${process.pid % 256}`;
  const first = 4 * ROUND_TRIPS_MS.indexOf(roundTripMs);
  const delayUs = (roundTripMs * 1000) / 2;
  const [here, there] = [`${network}.${first + 1}`, `${network}.${first + 2}`];
  const under = [workspace.floor('slow-link'), `${delayUs}`, here, there];
  return startOciRegistry(workspace, { data, host: `${there}:5000`, under });
}
