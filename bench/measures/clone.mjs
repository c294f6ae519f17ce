// A clone of a template in one piece: the least work there is.
import { peer, syncPeer } from '../peers/clone-peers.mjs';
import { floorClone, floorSlot } from '../peers/floor.mjs';
import { libraryClone } from '../peers/library.mjs';
import { atMostTimes } from '../targets.mjs';

/** @type {import('./index.mjs').Measure} */
export const clone = {
  name: 'clone',
  title: 'warm clone of a one-extent template',
  filesystems: ['xfs', 'btrfs'],
  full: { rounds: 800, seconds: 20 },
  quick: { rounds: 60, seconds: 1.2 },
  targets: [
    atMostTimes('library', 1.5, 'C floor, slot', ['xfs']),
    atMostTimes('library, sync', 1.15, 'C floor, slot', ['xfs']),
  ],
  async contestants(workspace) {
    const template = await workspace.template('one-extent');
    return {
      about: template.about,
      contestants: [
        await floorClone(workspace, template),
        await floorSlot(workspace, template),
        await libraryClone(workspace, template, { sync: true }),
        await libraryClone(workspace, template),
        await syncPeer(workspace, template, '@reflink/reflink, sync'),
        await syncPeer(workspace, template, 'fs.copyFileSync'),
        await peer(workspace, template, '@reflink/reflink'),
        await peer(workspace, template, 'fs.copyFile'),
        await peer(workspace, template, 'cp'),
      ],
    };
  },
};
