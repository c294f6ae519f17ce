// A fork of a slot, beside a clone of the same extents.
import { libraryClone, newVmId, releaseAll } from '../peers/library.mjs';
import { atMostTimes } from '../targets.mjs';
import { timeNs } from '../timing.mjs';

/** @typedef {import('../workspace.mjs').Workspace} Workspace */

/** @type {import('./index.mjs').Measure[]} */
export const forks = [
  {
    name: 'fork',
    title: 'fork of a 2 GiB slot as new as its sealed image',
    filesystems: ['xfs', 'btrfs'],
    full: { rounds: 400, seconds: 20 },
    quick: { rounds: 40, seconds: 1 },
    targets: [atMostTimes('library, fork', 1.5, 'library, clone')],
    contestants: (workspace) => contestants(workspace, 'realistic', 'auto'),
  },
  {
    name: 'fork-1000-extents',
    title: 'fork of a slot that its guest has scattered, beside a clone that is as scattered',
    filesystems: ['xfs', 'btrfs'],
    full: { rounds: 60, seconds: 20 },
    quick: { rounds: 10, seconds: 1 },
    targets: [atMostTimes('library, fork', 1.5, 'library, clone')],
    contestants: (workspace) => contestants(workspace, 'extents-1000', 'off'),
  },
];

/**
 * @param {Workspace} workspace
 * @param {import('../workspace.mjs').TemplateName} stack
 * @param {'auto' | 'off'} sealing
 */
async function contestants(workspace, stack, sealing) {
  const { RootfsRegistry } = workspace.library;
  const template = await workspace.template(stack);
  const clonesDir = await workspace.newFolder(`fork-${stack}`);
  const registry = new RootfsRegistry({ templateDir: workspace.templateDir, clonesDir, sealing });
  workspace.onEnd(() => registry.close());
  // Else it would be packed in the middle of the measure, and clones would have fewer extents than the slot.
  if (sealing === 'auto') await registry.prewarm(stack, { pack: true });
  const clone = await libraryClone(workspace, template, { name: 'library, clone', registry });
  const parent = newVmId();
  await registry.cloneForVm(parent, stack, { writable: true });
  /** @type {string[]} */
  const made = [];
  return {
    about:
      sealing === 'auto' ? `${template.about}; the slot has the extents of its sealed image` : template.about,
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
}
