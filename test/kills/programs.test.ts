// The programs that grow an image may fail, be killed, or outlive the process that started them, at any system call of
// theirs.
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { lacks } from '../fixtures/tools.js';
import { campaign, FULL, SEED } from './campaign.js';
import { wrapped } from './injectors.js';
import { inLanes } from './lanes.js';
import { OPERATIONS } from './operations.js';
import { Performer } from './performer.js';
import { faultsAt } from './points.js';
import { sample } from './sample.js';
import { Masters } from './site.js';
import { afterwards, dryRun, fail, killedBy, type Lane, newSite, orFaulty, type Surveyed } from './visits.js';

const isGrowing = (name: string) => name === 'first grown clone' || name === 'growing a slot';
const GROWING = OPERATIONS.filter(({ name }) => isGrowing(name));

campaign(
  'failed or killed in a program',
  ['XFS', 'ext4'],
  1,
  async (ground, filesystem): Promise<Surveyed> => {
    const performer = Performer.start();
    // Only a sealed image is checked.
    const checks = filesystem === 'XFS' && ground.operation.name === 'first grown clone';
    const points = await dryRun(ground, performer, checks ? ['resize2fs', 'e2fsck'] : ['resize2fs']);
    await performer.kill();
    const faults = points.flatMap((point) =>
      [...faultsAt(point), 'signal=SIGKILL'].map((what) => ({ point, what })),
    );
    const visits = await inLanes(
      FULL ? faults : sample(faults, 4, SEED),
      (): Lane => ({ performer: undefined }),
      (fault, lane) => orFaulty(fault, fail(ground, lane, fault)),
    );
    return { points: faults.length, visits };
  },
  ({ name }) => isGrowing(name),
);

test.for(
  GROWING.flatMap((operation) =>
    [
      { when: 'before it does anything', body: 'kill -9 $PPID' },
      { when: 'while it works', body: 'kill -9 $PPID & exec resize2fs "$@"' },
      { when: 'when it is done', body: 'resize2fs "$@"\nkill -9 $PPID' },
    ].map((moment) => ({ ...moment, operation, name: operation.name })),
  ),
)('resize2fs outlives the process that is killed $when: $name', async ({ operation, body }, { skip }) => {
  const { path, missing = lacks('mke2fs', 'resize2fs', 'e2fsck', 'debugfs') } = filesystemNamed('XFS');
  if (missing !== undefined) skip(missing);
  const folder = await mkdtemp(join(path, 'kills-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const performer = Performer.start();
  const masters = await Masters.make(folder);
  const site = await newSite({ folder, masters, artifacts: undefined, operation });
  const injector = await wrapped('resize2fs', site, body);
  const threads = await performer.prepare(
    injector.config,
    operation.before.map((call) => site.placed(call)),
  );
  const { faults, killed } = await killedBy(operation, performer, site, injector, threads);
  expect(killed).toBe(true);
  expect([...faults, ...(await afterwards(site, operation, false))]).toEqual([]);
});
