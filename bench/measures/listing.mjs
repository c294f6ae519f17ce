// Listing the slots of a host.
import { ONE_SAMPLE } from '../alternate.mjs';
import { formatNs } from '../format.mjs';
import { atMost } from '../targets.mjs';
import { timeNs } from '../timing.mjs';
import { MANY, registryWithSlots } from './many-slots.mjs';

/** @type {import('./index.mjs').Measure} */
export const listing = {
  name: 'listing',
  title: `slots() of ${MANY} slots`,
  filesystems: ['xfs'],
  full: { rounds: 10, seconds: 30 },
  quick: undefined,
  turn: ONE_SAMPLE,
  warmUps: 1,
  targets: [atMost('library', 1e9, formatNs)],
  async contestants(workspace) {
    await workspace.template('one-extent');
    const registry = await registryWithSlots(workspace, MANY);
    const list = async () => {
      let count = 0;
      for await (const slot of registry.slots()) if (slot.stack === 'one-extent') count++;
      if (count !== MANY) throw new Error(`${count} slots`);
    };
    return {
      about: 'of one stack',
      contestants: [{ name: 'library', does: 'for await of slots()', sample: () => timeNs(list) }],
    };
  },
};
