// A process that is killed at any system call leaves every slot whole or absent, and nothing that the next process does
// not clear.
import { campaign, FULL, QUICK, SEED } from './campaign.js';
import { inLanes } from './lanes.js';
import { Performer } from './performer.js';
import { distinctStates, historyAt, type Point } from './points.js';
import { sample } from './sample.js';
import { dryRun, type Ground, kill, orFaulty, type Surveyed, type Visit } from './visits.js';

// The order of work behind the caller's back is not quite the same each time.
const TRIES = 3;

campaign(
  'killed',
  ['XFS', 'btrfs', 'ext4'],
  2,
  async (ground, filesystem): Promise<Surveyed> => {
    const performer = Performer.start();
    const points = await dryRun(ground, performer);
    await performer.kill();
    const visits = await inLanes(
      chosen(ground, points, filesystem),
      () => undefined,
      (point, _, index) => orFaulty({ point, what: 'SIGKILL' }, killThere(ground, point, index % 2 === 1)),
    );
    return { points: points.length, visits };
  },
  (operation, filesystem) => !QUICK || filesystem === 'XFS' || operation.telling === true,
);

const seen = new Set<string>();

function chosen({ operation }: Ground, points: readonly Point[], filesystem: string): readonly Point[] {
  const states = distinctStates(points);
  if (operation.remote) return sample(states, ofTransfer(filesystem), SEED);
  if (FULL) return states;
  if (!QUICK) return sample(states, 4, SEED);
  if (filesystem !== 'XFS') return sample(states, 3, SEED);
  // How a folder is opened, for one, is seen with the first operation that does it.
  return states.filter((point) => {
    const key = JSON.stringify([operation.before, operation.name === 'recover', historyAt(points, point)]);
    return seen.size < seen.add(key).size;
  });
}

/** How many of the hundreds of states of a transfer. Each visit starts several programs. */
function ofTransfer(filesystem: string): number {
  if (FULL) return filesystem === 'XFS' ? Number.POSITIVE_INFINITY : 20;
  return QUICK && filesystem === 'XFS' ? 12 : 3;
}

async function killThere(ground: Ground, point: Point, recoverFirst: boolean): Promise<Visit> {
  let visit = await kill(ground, point, recoverFirst);
  for (let tries = 1; tries < TRIES && !visit.reached && visit.faults.length === 0; tries++)
    visit = await kill(ground, point, recoverFirst);
  return visit;
}
