// A copy where there is no reflink, in time and in blocks.

import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ONE_SAMPLE } from '../alternate.mjs';
import { output } from '../command.mjs';
import { formatBytes } from '../format.mjs';
import { peer, WAYS } from '../peers/clone-peers.mjs';
import { libraryClone, newVmId } from '../peers/library.mjs';
import { SlotsFolder } from '../peers/slots-folder.mjs';
import { atMostTimes } from '../targets.mjs';

/** @typedef {import('../alternate.mjs').Contestant} Contestant */
/** @typedef {import('../workspace.mjs').Workspace} Workspace */

const blocksOf = async (/** @type {string} */ path) => (await stat(path)).blocks * 512;

/** @type {import('./index.mjs').Measure} */
export const copy = {
  name: 'copy',
  title: 'copy of a sparse template without reflink',
  filesystems: ['ext4'],
  full: { rounds: 30, seconds: 30 },
  quick: { rounds: 3, seconds: 3 },
  turn: ONE_SAMPLE,
  warmUps: 1,
  targets: [atMostTimes('library', 1.05, 'plain cp')],
  async contestants(workspace) {
    const template = await workspace.template('sparse');
    const contestants = [
      await libraryClone(workspace, template),
      await peer(workspace, template, 'plain cp'),
      await peer(workspace, template, 'plain cp, flushed'),
    ];
    return { about: template.about, contestants: contestants.map((way) => cleanedEach(workspace, way)) };
  },
};

/** @type {import('./index.mjs').Measure} */
export const copyBlocks = {
  name: 'copy-blocks',
  title: 'blocks of that copy',
  filesystems: ['ext4'],
  unit: 'bytes',
  full: { rounds: 1, seconds: 30 },
  quick: { rounds: 1, seconds: 1 },
  turn: ONE_SAMPLE,
  warmUps: 0,
  targets: [atMostTimes('library', 1.0, 'the template')],
  async contestants(workspace) {
    const template = await workspace.template('sparse');
    const slots = new SlotsFolder(await workspace.newFolder('copy-blocks'));
    return {
      about: `${formatBytes(template.sizeBytes)} long`,
      contestants: [
        { name: 'the template', does: 'as it lies', sample: () => blocksOf(template.path) },
        {
          name: 'library',
          does: 'cloneForVm(id, stack, { writable: true })',
          async sample() {
            const slot = await workspace.registry.cloneForVm(newVmId(), template.stack, { writable: true });
            await output('sync', [slot.path]);
            return blocksOf(slot.path);
          },
        },
        {
          name: 'plain cp',
          does: WAYS['plain cp'].does,
          async sample() {
            const slot = slots.next();
            await WAYS['plain cp'].make(template, slot);
            const image = join(slot, 'rootfs.ext4');
            await output('sync', [image]);
            return blocksOf(image);
          },
        },
      ],
    };
  },
};

/**
 * Each copy begins with as little to be written back as the one before it.
 * @param {Workspace} workspace
 * @param {Contestant} way
 * @returns {Contestant}
 */
function cleanedEach(workspace, way) {
  return {
    ...way,
    async afterEach() {
      await way.clean?.();
      await workspace.settle();
    },
  };
}
