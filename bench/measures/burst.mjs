// A thousand VMs at the same moment. One sample is the time until the last slot is there.
import { WAYS } from '../peers/clone-peers.mjs';
import { floorBurst } from '../peers/floor.mjs';
import { newVmId, releaseAll } from '../peers/library.mjs';
import { SlotsFolder } from '../peers/slots-folder.mjs';
import { atLeastTimesFaster } from '../targets.mjs';
import { timeNs } from '../timing.mjs';

/** @typedef {import('../alternate.mjs').Contestant} Contestant */
/** @typedef {import('../workspace.mjs').Workspace} Workspace */
/** @typedef {import('../workspace.mjs').Template} Template */

const COUNT = 1000;
// All at once would be a thousand processes.
const CP_AT_ONCE = 16;

/** @type {import('./index.mjs').Measure} */
export const burst = {
  name: 'burst',
  title: `${COUNT} clones at once`,
  filesystems: ['xfs', 'btrfs'],
  full: { rounds: 40, seconds: 20 },
  quick: { rounds: 3, seconds: 1, on: ['xfs'] },
  turn: { thrownAway: 1, counted: 1 },
  warmUps: 3,
  cleanEvery: 1,
  // cp alone takes seconds in each.
  leastRounds: 10,
  rateUnit: 'slots/s',
  targets: [
    {
      ...atLeastTimesFaster('library, cloneMany', 0.8, 'C floor, two threads'),
      text: 'library, cloneMany ≥ 0.8 × as fast as C floor, two threads',
    },
  ],
  async contestants(workspace) {
    const template = await workspace.template('one-extent');
    const contestants = [
      await floorBurst(workspace, template, COUNT),
      cloneMany(workspace, template),
      cloneForVmAtOnce(workspace, template),
      await peerAtOnce(workspace, template, '@reflink/reflink', COUNT),
      await peerAtOnce(workspace, template, 'fs.copyFile', COUNT),
      // Takes seconds.
      ...(workspace.quick ? [] : [await peerAtOnce(workspace, template, 'cp', CP_AT_ONCE)]),
    ];
    return { about: template.about, contestants: contestants.map((way) => ({ ...way, amount: COUNT })) };
  },
};

const newIds = () => Array.from({ length: COUNT }, newVmId);

/**
 * @param {Workspace} workspace
 * @param {Template} template
 * @returns {Contestant}
 */
function cloneForVmAtOnce({ registry }, { stack }) {
  /** @type {string[]} */
  let ids = [];
  return {
    name: 'library',
    does: `Promise.all of ${COUNT} × cloneForVm`,
    sample() {
      ids = newIds();
      return timeNs(() => Promise.all(ids.map((id) => registry.cloneForVm(id, stack, { writable: true }))));
    },
    clean: () => releaseAll(registry, ids.splice(0)),
  };
}

/**
 * @param {Workspace} workspace
 * @param {Template} template
 * @returns {Contestant}
 */
function cloneMany({ registry }, { stack }) {
  const name = 'library, cloneMany';
  const does = `cloneMany of ${COUNT} requests`;
  if (typeof registry.cloneMany !== 'function')
    return { name, does, unavailable: 'no cloneMany in this build' };
  /** @type {string[]} */
  let ids = [];
  return {
    name,
    does,
    async sample() {
      ids = newIds();
      const requests = ids.map((vmId) => ({ vmId, stack, options: { writable: true } }));
      /** @type {PromiseSettledResult<unknown>[]} */
      let results = [];
      const ns = await timeNs(async () => {
        results = await registry.cloneMany(requests);
      });
      const failed = results.find(({ status }) => status === 'rejected');
      if (failed?.status === 'rejected') throw failed.reason;
      return ns;
    },
    clean: () => releaseAll(registry, ids.splice(0)),
  };
}

/**
 * @param {Workspace} workspace
 * @param {Template} template
 * @param {keyof typeof WAYS} name
 * @param {number} atOnce
 * @returns {Promise<Contestant>}
 */
async function peerAtOnce(workspace, template, name, atOnce) {
  const { does, make } = WAYS[name];
  const slots = new SlotsFolder(await workspace.newFolder(`burst-${name}`));
  return {
    name,
    does: `${does}; ${atOnce} at once`,
    sample: () => {
      let left = COUNT;
      const worker = async () => {
        while (left-- > 0) await make(template, slots.next());
      };
      return timeNs(() => Promise.all(Array.from({ length: atOnce }, worker)));
    },
    clean: () => slots.empty(),
  };
}
