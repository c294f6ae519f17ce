import { configDefaults, defineConfig } from 'vitest/config';

// They need a pool of ZFS: test/guests/run.mjs runs them.
const forGuests = process.env.TEST_FILESYSTEMS === undefined ? ['test/guests/**'] : [];

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: [...configDefaults.exclude, ...forGuests],
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
