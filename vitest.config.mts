import { defineConfig } from 'vitest/config';

// Not all of these have been seen clean (docs/reliability.md), so they have commands of their own and do not hold up changes:
// npm run test:kills, npm run test:power-cuts.
const CAMPAIGNS = [
  { variable: 'KILLS', files: 'test/kills/{kills,errors,short-calls}.test.ts' },
  { variable: 'POWER_CUTS', files: 'test/power-cuts/power-cuts.test.ts' },
];

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: CAMPAIGNS.filter(({ variable }) => !process.env[variable]).map(({ files }) => files),
    globalSetup: ['test/global-setup.ts'],
    // Forks, not threads: a crash of the addon ends one test file, and its death by signal is seen.
    pool: 'forks',
    maxWorkers: '100%',
    testTimeout: 30_000,
    hookTimeout: 30_000,
    coverage: {
      provider: 'v8',
      include: ['src/**/*.ts'],
      // The command line is tested as it is used, in processes of its own, where v8 does not count for us.
      exclude: ['src/cli/**'],
      reporter: ['text-summary', 'json-summary'],
      thresholds: { lines: 90 },
    },
  },
});
