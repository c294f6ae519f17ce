// npm run test:power-cuts -- [--cuts N] [--seed N] [--on XFS|btrfs|ext4]: more power cuts than a usual run of the tests
// makes, N in all.
import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';

const DISKS = ['XFS', 'btrfs', 'ext4'];

const { values } = parseArgs({
  options: {
    cuts: { type: 'string', default: '3000' },
    seed: { type: 'string' },
    on: { type: 'string', multiple: true, default: DISKS },
  },
});
const files = values.on.map((disk) => `test/power-cuts/random-${disk.toLowerCase()}.test.ts`);
const env = { ...process.env, POWER_CUTS: String(Math.ceil(Number(values.cuts) / files.length)) };
if (values.seed !== undefined) env.POWER_CUTS_SEED = values.seed;
const { status } = spawnSync(
  'bash',
  [
    'test/run.sh',
    'test/power-cuts/sequences.test.ts',
    'test/power-cuts/life.test.ts',
    'test/power-cuts/pulls.test.ts',
    ...files,
  ],
  {
    stdio: 'inherit',
    env,
  },
);
process.exit(status ?? 1);
