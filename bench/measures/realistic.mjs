// A clone of a template as image builders leave it: scattered.
import { peer } from '../peers/clone-peers.mjs';
import { floorClone } from '../peers/floor.mjs';
import { libraryClone } from '../peers/library.mjs';
import { atLeastTimesFaster } from '../targets.mjs';

/** @type {import('./index.mjs').Measure} */
export const realistic = {
  name: 'realistic',
  title: 'warm clone of a realistic template',
  filesystems: ['xfs', 'btrfs'],
  full: { rounds: 400, seconds: 20 },
  quick: { rounds: 40, seconds: 1 },
  targets: [
    atLeastTimesFaster('library, packed', 25, 'cp'),
    atLeastTimesFaster('library, packed', 10, 'fs.copyFile'),
  ],
  async contestants(workspace) {
    const template = await workspace.template('realistic');
    return {
      about: template.about,
      contestants: [
        await floorClone(workspace, template),
        await libraryClone(workspace, template),
        await libraryClone(workspace, template, { packed: true }),
        await peer(workspace, template, '@reflink/reflink'),
        await peer(workspace, template, 'fs.copyFile'),
        await peer(workspace, template, 'cp'),
      ],
    };
  },
};
