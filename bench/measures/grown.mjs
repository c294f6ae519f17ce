// A clone with a bigger disk than the template's.
import { grownBytesOf, peer } from '../peers/clone-peers.mjs';
import { libraryClone } from '../peers/library.mjs';
import { atLeastTimesFaster, atMostTimes } from '../targets.mjs';

/** @type {import('./index.mjs').Measure} */
export const grown = {
  name: 'grown',
  title: 'warm clone of a realistic template, grown to four times its size',
  filesystems: ['xfs', 'btrfs'],
  full: { rounds: 250, seconds: 15 },
  quick: { rounds: 8, seconds: 1, on: ['xfs'] },
  targets: [
    atLeastTimesFaster('library, packed, grown', 100, 'cp + resize2fs'),
    atMostTimes('library, grown', 1.2, 'library, not grown'),
  ],
  async contestants(workspace) {
    const template = await workspace.template('realistic');
    const sizeBytes = grownBytesOf(template);
    return {
      about: template.about,
      contestants: [
        await libraryClone(workspace, template, { name: 'library, not grown' }),
        await libraryClone(workspace, template, { name: 'library, grown', sizeBytes }),
        await libraryClone(workspace, template, { name: 'library, packed, grown', sizeBytes, packed: true }),
        await peer(workspace, template, 'cp + resize2fs'),
      ],
    };
  },
};
