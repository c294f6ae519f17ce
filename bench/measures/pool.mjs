// A slot that was made ahead of time.
import { peer } from '../peers/clone-peers.mjs';
import { floorReadySlot } from '../peers/floor.mjs';
import { libraryClone, READY } from '../peers/library.mjs';
import { atLeastTimesFaster, atMostTimes } from '../targets.mjs';

const WAYS = [{ name: 'library, pool' }, { name: 'library, pool, sync', sync: true }];

/** @type {import('./index.mjs').Measure} */
export const pool = {
  name: 'pool',
  title: 'a slot from the pool',
  filesystems: ['xfs', 'btrfs'],
  full: { rounds: 500, seconds: 15 },
  quick: { rounds: 50, seconds: 1 },
  targets: [
    atMostTimes('library, pool', 4, 'C floor, rename'),
    atMostTimes('library, pool, sync', 1.6, 'C floor, rename'),
    atLeastTimesFaster('library, pool', 40, 'cp'),
  ],
  async contestants(workspace) {
    const template = await workspace.template('one-extent');
    const floor = await floorReadySlot(workspace, template);
    const cp = await peer(workspace, template, 'cp');
    // A registry of its own, so that no other measure's clones come from this pool.
    const { RootfsRegistry } = workspace.library;
    const registry = new RootfsRegistry({
      templateDir: workspace.templateDir,
      clonesDir: await workspace.newFolder('pool'),
    });
    workspace.onEnd(() => registry.close());
    if (typeof registry.prewarm !== 'function') {
      const unavailable = 'no prewarm in this build';
      const missing = WAYS.map((way) => ({ ...way, does: 'a clone that the pool has ready', unavailable }));
      return { about: template.about, contestants: [floor, ...missing, cp] };
    }
    const contestants = [floor];
    for (const way of WAYS) {
      contestants.push(await libraryClone(workspace, template, { ...way, registry, pooled: true }));
    }
    return { about: `${template.about}; ${READY} slots kept ready`, contestants: [...contestants, cp] };
  },
};
