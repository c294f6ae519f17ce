// What the number of extents costs: FICLONE copies the map of the file, one entry at a time.
import { formatCount } from '../format.mjs';
import { peer } from '../peers/clone-peers.mjs';
import { floorClone } from '../peers/floor.mjs';
import { libraryClone } from '../peers/library.mjs';
import { atLeastTimesFaster } from '../targets.mjs';

/** @type {import('./index.mjs').Measure[]} */
export const extents = [1, 64, 1000, 10_000].map((count) => ({
  name: `extents-${count}`,
  title: `warm clone of a template of ${formatCount(count)} ${count === 1 ? 'extent' : 'extents'} of 4 KiB`,
  filesystems: ['xfs', 'btrfs'],
  full: { rounds: count < 10_000 ? 250 : 40, seconds: 8 },
  quick: count === 64 ? undefined : { rounds: count < 10_000 ? 20 : 2, seconds: 0.5, on: ['xfs'] },
  ...(count < 10_000 ? {} : { turn: { thrownAway: 1, counted: 1 }, warmUps: 1 }),
  targets: count === 1000 ? [atLeastTimesFaster('library, packed, sync', 100, 'C floor, FICLONE')] : [],
  async contestants(workspace) {
    const template = await workspace.template(`extents-${count}`);
    return {
      about: template.about,
      contestants: [
        await floorClone(workspace, template),
        await libraryClone(workspace, template),
        ...(count === 1000 ? [await libraryClone(workspace, template, { packed: true, sync: true })] : []),
        await peer(workspace, template, '@reflink/reflink'),
        await peer(workspace, template, 'fs.copyFile'),
        await peer(workspace, template, 'cp'),
      ],
    };
  },
}));
