// A host has a template and pulls an upgrade of it, that was made anew or in place: in time, in bytes on the wire, and
// in requests.
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ONCE } from '../alternate.mjs';
import { fleetOf } from '../fleet/fleet.mjs';
import { formatBytes, formatCount } from '../format.mjs';
import { CasyncStore, lacksCasync } from '../peers/casync.mjs';
import { fetchWithSkopeo, pushWhole } from '../peers/whole-image.mjs';
import { atMost, atMostTimes } from '../targets.mjs';
import { timeNs } from '../timing.mjs';

/** @typedef {import('../workspace.mjs').Workspace} Workspace */
/** @typedef {import('../fleet/fleet.mjs').Fleet} Fleet */
/** @typedef {{ ns: number, bytes: number, requests: number }} Fetched */
/**
 * @typedef {object} Way
 * @property {string} name
 * @property {string} does
 * @property {string} [unavailable]
 * @property {() => Promise<Fetched>} fetch
 * @property {Fetched} [last] bytes and requests are the same each time
 */

const COLD = 'library, cold';
const ANEW = 'library, made anew';
const IN_PLACE = 'library, in place';

const effort = /** @type {const} */ ({
  filesystems: ['xfs'],
  ...ONCE,
});

/** @type {import('./index.mjs').Measure} */
export const update = /** @type {any} */ ({
  ...effort,
  name: 'update',
  together: 'fleet',
  title: 'pull of an upgraded template by a host that has the one before',
  full: { rounds: 2, seconds: 240 },
  targets: [],
  contestants: (/** @type {Workspace} */ workspace) => contestants(workspace, 'ns'),
});

/** @type {import('./index.mjs').Measure} */
export const updateBytes = /** @type {any} */ ({
  ...effort,
  name: 'update-bytes',
  together: 'fleet',
  title: 'bytes on the wire of that pull',
  unit: 'bytes',
  targets: [atMostTimes(ANEW, 0.4, COLD), atMostTimes(IN_PLACE, 0.4, COLD)],
  contestants: (/** @type {Workspace} */ workspace) => contestants(workspace, 'bytes'),
});

/** @type {import('./index.mjs').Measure} */
export const updateRequests = /** @type {any} */ ({
  ...effort,
  name: 'update-requests',
  together: 'fleet',
  title: 'requests of that pull',
  unit: 'requests',
  targets: [atMost(ANEW, 350, formatCount), atMost(IN_PLACE, 350, formatCount)],
  contestants: (/** @type {Workspace} */ workspace) => contestants(workspace, 'requests'),
});

/** @type {WeakMap<Fleet, Promise<Way[]>>} */
const WAYS = new WeakMap();

/**
 * @param {Workspace} workspace
 * @param {keyof Fetched} what
 */
async function contestants(workspace, what) {
  const fleet = await fleetOf(workspace);
  let ways = WAYS.get(fleet);
  if (ways === undefined) {
    ways = waysOf(fleet);
    WAYS.set(fleet, ways);
  }
  const { about } = await fleet.version('cold');
  return {
    about: `a template of ${about}; ${fleet.aboutUpgrade}`,
    contestants: (await ways).map((way) => ({
      name: way.name,
      does: way.does,
      ...(way.unavailable === undefined ? {} : { unavailable: way.unavailable }),
      async sample() {
        if (what === 'ns' || way.last === undefined) way.last = await way.fetch();
        return way.last[what];
      },
      note: () =>
        way.last && what === 'ns'
          ? `${formatBytes(way.last.bytes)} in ${formatCount(way.last.requests)} requests`
          : undefined,
    })),
  };
}

/**
 * @param {Fleet} fleet
 * @returns {Promise<Way[]>}
 */
async function waysOf(fleet) {
  const [cold, anew, inPlace] = [
    await fleet.version('cold'),
    await fleet.version('anew'),
    await fleet.version('in-place'),
  ];
  const updating = fleet.host('updating');
  fleet.workspace.onEnd(() => updating.end());
  const pullUpdate = async (/** @type {string} */ reference) => {
    await updating.registry.pullStack(cold.reference, { replace: true });
    return measured(fleet, fleet.registry, () => updating.registry.pullStack(reference, { replace: true }));
  };
  const pullCold = async () => {
    const { registry, end } = fleet.host();
    const fetched = await measured(fleet, fleet.registry, () => registry.pullStack(cold.reference));
    await end();
    return fetched;
  };
  return [
    { name: COLD, does: 'pullStack of the first template into an empty catalog', fetch: pullCold },
    {
      name: ANEW,
      does: 'pullStack of the upgrade, published as a folder',
      fetch: () => pullUpdate(anew.reference),
    },
    {
      name: IN_PLACE,
      does: 'pullStack of the upgrade, made in the mounted image',
      fetch: () => pullUpdate(inPlace.reference),
    },
    await skopeoWay(fleet, anew),
    ...(await casyncWays(fleet, cold.image, { 'made anew': anew, 'in place': inPlace })),
  ];
}

/**
 * @param {Fleet} fleet
 * @param {import('../fleet/fleet.mjs').Version} version
 * @returns {Promise<Way>}
 */
async function skopeoWay(fleet, { name, image }) {
  const { host } = fleet.registry;
  const blob = await pushWhole(image, host, 'bench/whole', name);
  const place = join(fleet.folder, 'skopeo');
  return {
    name: 'skopeo copy, zstd -d',
    does: 'skopeo copy of the upgraded image as one zstd blob, made anew, then zstd -d into a file',
    async fetch() {
      const reference = `${host}/bench/whole:${name}`;
      const fetched = await measured(fleet, fleet.registry, () => fetchWithSkopeo(reference, [blob], place));
      await rm(place, { recursive: true });
      return fetched;
    },
  };
}

/**
 * @param {Fleet} fleet
 * @param {string} seed
 * @param {Record<string, import('../fleet/fleet.mjs').Version>} versions
 * @returns {Promise<Way[]>}
 */
async function casyncWays(fleet, seed, versions) {
  const unavailable = lacksCasync();
  const store = unavailable === undefined ? await CasyncStore.start(fleet.workspace) : undefined;
  for (const version of Object.values(versions)) await store?.add(version);
  return Object.entries(versions).map(([how, { name }]) => ({
    name: `casync, ${how}`,
    does: 'casync extract over HTTP, with the image before as its seed',
    ...(unavailable === undefined ? {} : { unavailable }),
    async fetch() {
      if (store === undefined) throw new Error(unavailable);
      let clean = async () => {};
      const fetched = await measured(fleet, store, async () => {
        clean = await store.extract(name, seed);
      });
      await clean();
      return fetched;
    },
  }));
}

/**
 * @param {Fleet} fleet
 * @param {{ traffic: () => Promise<import('../access-log.mjs').Traffic> }} server
 * @param {() => Promise<unknown>} work
 * @returns {Promise<Fetched>}
 */
async function measured(fleet, server, work) {
  await fleet.workspace.settle();
  await server.traffic();
  const ns = await timeNs(work);
  return { ns, ...(await server.traffic()) };
}
