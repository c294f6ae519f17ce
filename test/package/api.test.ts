// What is public stands in api/microvm-rootfs.api.md, so that no change of it passes a review unseen.
import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';

test('the public names and types are those of the report', { timeout: 120_000 }, () => {
  const { status, stdout, stderr } = spawnSync(
    'npx',
    ['api-extractor', 'run', '-c', 'api/api-extractor.json'],
    {
      encoding: 'utf8',
    },
  );
  expect(
    status,
    `${stdout}${stderr}\nIf the change is meant: npm run build:ts && npm run api, and note it in CHANGELOG.md`,
  ).toBe(0);
});

test('docs/api.md says what the docstrings say', () => {
  // From the model that api-extractor wrote in the test before.
  const { status, stderr } = spawnSync(process.execPath, ['scripts/api-docs.mjs', '--check'], {
    encoding: 'utf8',
  });
  expect(stderr).toBe('');
  expect(status).toBe(0);
});
