// Any system call may fail: what follows is a typed error or success, never a wrong disk, and nothing is left behind.
import { campaign, FULL, SEED } from './campaign.js';
import { inLanes } from './lanes.js';
import { Performer } from './performer.js';
import { faultsAt, firstOfEach } from './points.js';
import { sample } from './sample.js';
import { dryRun, fail, type Lane, orFaulty, type Surveyed } from './visits.js';

/** How many of the failures of an operation are visited where not all are. */
const FEW = Number(process.env.KILLS_FEW ?? 5);

campaign(
  'failed',
  FULL ? ['XFS', 'btrfs', 'ext4'] : ['XFS'],
  5,
  async (ground, filesystem): Promise<Surveyed> => {
    const performer = Performer.start();
    const every = await dryRun(ground, performer);
    const points = ground.operation.remote ? firstOfEach(every) : every;
    const faults = points.flatMap((point) => faultsAt(point).map((what) => ({ point, what })));
    const chosen = FULL && filesystem === 'XFS' ? faults : sample(faults, FULL ? 20 : FEW, SEED);
    await performer.kill();
    const visits = await inLanes(
      chosen,
      (): Lane => ({ performer: undefined }),
      (fault, lane) => orFaulty(fault, fail(ground, lane, fault)),
    );
    return { points: faults.length, visits };
  },
);
