// The kernel may read, write and copy less than it was asked for, at any call.
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { expect } from 'vitest';
import { campaign, FULL } from './campaign.js';
import { Performer } from './performer.js';
import { dryRun, type Surveyed } from './visits.js';

const DATA = /^(pread64|p?write|copy_file_range)/;
const WRITES = /^(p?write|copy_file_range)/;

campaign(
  'with every read, write and copy cut to a third',
  ['XFS', 'ext4'],
  1,
  async (ground): Promise<Surveyed> => {
    const library = join(ground.folder, 'short_calls.so');
    execFileSync('cc', ['-shared', '-fPIC', '-O1', '-o', library, 'test/kills/short_calls.c', '-ldl']);
    const whole = Performer.start();
    const cut = Performer.start({ LD_PRELOAD: library });
    const before = (await dryRun(ground, whole)).filter(({ name }) => DATA.test(name));
    const points = (await dryRun(ground, cut)).filter(({ name }) => DATA.test(name));
    await whole.kill();
    await cut.kill();
    if (before.some(({ name }) => WRITES.test(name))) expect(points.length).toBeGreaterThan(before.length);
    return {
      points: points.length,
      visits: points.map((point) => ({
        point,
        what: 'short',
        reached: true,
        outcome: 'success',
        faults: [],
      })),
    };
  },
  ({ name, telling }) => FULL || telling === true || name === 'first clone, packed',
);
