// npm run test:power-cuts -- [--cuts N] [--seed N] [--on XFS|btrfs|ext4]: more power cuts than a usual run of the tests makes.
import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    cuts: { type: 'string', default: '3000' },
    seed: { type: 'string' },
    on: { type: 'string' },
  },
});
const env = { ...process.env, POWER_CUTS: values.cuts };
if (values.seed !== undefined) env.POWER_CUTS_SEED = values.seed;
if (values.on !== undefined) env.POWER_CUTS_ON = values.on;
const { status } = spawnSync('bash', ['test/run.sh', 'test/power-cuts'], { stdio: 'inherit', env });
process.exit(status ?? 1);
