// A scheduler that was restarted: its first clone, in a new process, of a template that the process before it knew.
import { ONE_SAMPLE } from '../alternate.mjs';
import { output } from '../command.mjs';
import { formatNs } from '../format.mjs';
import { newVmId } from '../peers/library.mjs';
import { atLeastTimesFaster, atMost } from '../targets.mjs';
import { timeNs } from '../timing.mjs';

/** @typedef {import('../alternate.mjs').Contestant} Contestant */
/** @typedef {import('../workspace.mjs').Workspace} Workspace */

const CHILD = new URL('../children/first-clone.mjs', import.meta.url).pathname;

/** @type {import('./index.mjs').Measure} */
export const firstClone = {
  name: 'first-clone',
  title: 'first clone in a new process, of a known 2 GiB template',
  filesystems: ['xfs'],
  full: { rounds: 50, seconds: 20 },
  quick: { rounds: 2, seconds: 2 },
  turn: ONE_SAMPLE,
  warmUps: 1,
  targets: [
    atLeastTimesFaster('library, first clone', 100, 'hashing the template'),
    atMost('library, import to clone', 60e6, formatNs),
  ],
  async contestants(workspace) {
    const template = await workspace.template('realistic');
    return {
      about: template.about,
      contestants: [
        inNewProcess(
          workspace,
          'library, import to clone',
          'totalNs',
          'import, new RootfsRegistry, cloneForVm',
        ),
        inNewProcess(workspace, 'library, first clone', 'cloneNs', 'the cloneForVm in that'),
        {
          name: 'hashing the template',
          does: 'hashFile of the template, in a process that runs; the template is in the page cache',
          sample: () => timeNs(() => workspace.library.hashFile(template.path)),
        },
      ],
    };
  },
};

/**
 * @param {Workspace} workspace
 * @param {string} name
 * @param {'totalNs' | 'cloneNs'} field
 * @param {string} does
 * @returns {Contestant}
 */
function inNewProcess({ libraryFolder, templateDir, clonesDir }, name, field, does) {
  return {
    name,
    does,
    async sample() {
      const args = [CHILD, libraryFolder, templateDir, clonesDir, 'realistic', newVmId()];
      return JSON.parse(await output(process.execPath, args))[field];
    },
  };
}
