// npm run test:tenants -- [--minutes N] [--seed N] [--on XFS|btrfs|ext4]: hostile tenants for longer than a usual run
// of the tests, N minutes in all.
import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';

const FILESYSTEMS = ['XFS', 'btrfs', 'ext4'];

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '15' },
    seed: { type: 'string' },
    on: { type: 'string', multiple: true, default: FILESYSTEMS },
  },
});
const seconds = Math.ceil((Number(values.minutes) * 60) / values.on.length);
const env = { ...process.env, TENANTS_SECONDS: String(seconds) };
if (values.seed !== undefined) env.TENANTS_SEED = values.seed;
const { status } = spawnSync('bash', ['test/run.sh', 'test/tenants', '-t', `'(${values.on.join('|')})'`], {
  stdio: 'inherit',
  env,
});
process.exit(status ?? 1);
