// A clone with a bigger disk than the template's.
import { peer } from '../peers/clone-peers.mjs';
import { libraryClone } from '../peers/library.mjs';
import { atLeastTimesFaster, atMostTimes } from '../targets.mjs';

/** @type {import('./index.mjs').Measure} */
export const grown = {
  name: 'grown',
  title: 'warm clone of a realistic template, grown from 2 to 8 GiB',
  filesystems: ['xfs', 'btrfs'],
  full: { rounds: 250, seconds: 15 },
  quick: { rounds: 8, seconds: 1, on: ['xfs'] },
  targets: [
    atLeastTimesFaster('library, packed, grown', 100, 'cp + resize2fs'),
    atMostTimes('library, grown', 1.2, 'library, not grown'),
  ],
  async contestants(workspace) {
    const template = await workspace.template('realistic');
    return {
      about: template.about,
      contestants: [
        await libraryClone(workspace, template, { name: 'library, not grown' }),
        await libraryClone(workspace, template, { name: 'library, grown', sizeBytes: 8 * 2 ** 30 }),
        await libraryClone(workspace, template, {
          name: 'library, packed, grown',
          sizeBytes: 8 * 2 ** 30,
          packed: true,
        }),
        await peer(workspace, template, 'cp + resize2fs'),
      ],
    };
  },
};
