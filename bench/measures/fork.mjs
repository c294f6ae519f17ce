// A fork of a slot, beside a clone of the template that it is of.
import { libraryClone, newVmId, releaseAll } from '../peers/library.mjs';
import { atMostTimes } from '../targets.mjs';
import { timeNs } from '../timing.mjs';

/** @type {import('./index.mjs').Measure} */
export const fork = {
  name: 'fork',
  title: 'fork of a realistic 2 GiB slot',
  filesystems: ['xfs', 'btrfs'],
  full: { rounds: 400, seconds: 20 },
  quick: { rounds: 40, seconds: 1 },
  targets: [atMostTimes('library, fork', 1.5, 'library, clone')],
  async contestants(workspace) {
    const template = await workspace.template('realistic');
    const { registry } = workspace;
    const clone = await libraryClone(workspace, template, { name: 'library, clone' });
    const parent = newVmId();
    await registry.cloneForVm(parent, template.stack, { writable: true });
    /** @type {string[]} */
    const made = [];
    return {
      about: `${template.about}; the slot has the extents of its sealed image`,
      contestants: [
        clone,
        {
          name: 'library, fork',
          does: 'forkSlot(from, id)',
          async sample() {
            const id = newVmId();
            const ns = await timeNs(() => registry.forkSlot(parent, id));
            made.push(id);
            return ns;
          },
          clean: () => releaseAll(registry, made.splice(0)),
        },
      ],
    };
  },
};
