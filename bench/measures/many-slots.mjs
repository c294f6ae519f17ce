// Whether a clone costs more where many slots are there already.
import { mkdir } from 'node:fs/promises';
import { floorSlot } from '../peers/floor.mjs';
import { libraryClone, newVmId } from '../peers/library.mjs';
import { atMostTimes } from '../targets.mjs';

/** @typedef {import('../workspace.mjs').Workspace} Workspace */

const FEW = 100;
export const MANY = 50_000;
const AT_ONCE = 64;

/** @type {import('./index.mjs').Measure} */
export const manySlots = {
  name: 'many-slots',
  title: `warm clone where ${MANY} slots are there`,
  filesystems: ['xfs'],
  full: { rounds: 500, seconds: 15 },
  quick: undefined,
  targets: [atMostTimes(`library, ${MANY} slots`, 1.2, `library, ${FEW} slots`)],
  async contestants(workspace) {
    const template = await workspace.template('one-extent');
    const contestants = [];
    for (const count of [FEW, MANY]) {
      const registry = await registryWithSlots(workspace, count);
      contestants.push(
        await floorSlot(workspace, template, {
          name: `C floor, ${count} slots`,
          slots: registry.config.clonesDir,
        }),
        await libraryClone(workspace, template, { name: `library, ${count} slots`, registry }),
      );
    }
    return { about: template.about, contestants };
  },
};

/**
 * @param {Workspace} workspace
 * @param {number} count
 */
export async function registryWithSlots(workspace, count) {
  const { RootfsRegistry } = workspace.library;
  const clonesDir = await workspace.newFolder(`slots-${count}`);
  await mkdir(clonesDir, { recursive: true });
  const registry = new RootfsRegistry({ templateDir: workspace.templateDir, clonesDir });
  workspace.onEnd(() => registry.close());
  let left = count;
  const worker = async () => {
    while (left-- > 0) await registry.cloneForVm(newVmId(), 'one-extent', { writable: true });
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return registry;
}
