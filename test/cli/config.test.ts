// Where the folders come from: flags, environment, file, defaults, in this order.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { effectiveConfig } from '../../src/cli/config-file.js';
import { DEFAULT_CLONES_DIR, DEFAULT_TEMPLATE_DIR } from '../../src/index.js';
import { Host } from '../fixtures/host.js';
import { rejection } from '../fixtures/rejection.js';
import { cli, cliError } from './run-cli.js';

async function configFile(contents: string): Promise<string> {
  const { root } = await Host.in();
  const path = join(root, 'config.json');
  await writeFile(path, contents);
  return path;
}

test('flags go before the environment, that before the file, that before the defaults', async () => {
  const config = await configFile(
    JSON.stringify({ templateDir: '/file/t', clonesDir: '/file/c', resize2fsBin: '/file/r', sealing: 'off' }),
  );
  const env = { MICROVM_ROOTFS_TEMPLATE_DIR: '/env/t', MICROVM_ROOTFS_CLONES_DIR: '/env/c' };
  expect(await effectiveConfig({ config, templates: '/flag/t' }, env)).toEqual({
    templateDir: '/flag/t',
    clonesDir: '/env/c',
    resize2fsBin: '/file/r',
    sealing: 'off',
  });
  // Also where it says what would be the default.
  const defaults = { MICROVM_ROOTFS_TEMPLATE_DIR: DEFAULT_TEMPLATE_DIR };
  expect(await effectiveConfig({ config }, defaults)).toMatchObject({
    templateDir: DEFAULT_TEMPLATE_DIR,
    clonesDir: '/file/c',
  });
  expect(await effectiveConfig({}, { MICROVM_ROOTFS_CONFIG: config })).toMatchObject({
    clonesDir: '/file/c',
  });
  expect(await effectiveConfig({}, {})).toMatchObject({ clonesDir: DEFAULT_CLONES_DIR });
});

test('folders given relative are those below the working folder', async () => {
  expect(await effectiveConfig({ clones: 'here' }, {})).toMatchObject({
    clonesDir: join(process.cwd(), 'here'),
  });
});

test.each([
  ['no JSON', '{', /it is not JSON/],
  ['a key twice', '{"clonesDir": "/a", "clones\\u0044ir": "/b"}', /"clonesDir" stands there twice/],
  ['no object', '[]', /one JSON object/],
  [
    'a setting that there is not',
    '{"clonesDri": "/x"}',
    /"clonesDri" is not a setting; known are templateDir/,
  ],
  ['no string', '{"clonesDir": 1}', /must be a string/],
  ['a relative folder', '{"clonesDir": "x"}', /absolute path/],
  ['a way of sealing that there is not', '{"sealing": "on"}', /"auto" or "off"/],
])('a file with %s is refused', async (_what, contents, words) => {
  const config = await configFile(contents);
  const error = await rejection(effectiveConfig({ config }, {}), 'CONFIG_INVALID');
  expect(error.message).toMatch(words);
  expect(error.path).toBe(config);
});

test('a file that was named must be there', async () => {
  expect(await cliError(undefined, ['stacks', '--config', '/nonexistent'])).toBe('CONFIG_INVALID 2');
});

test('the command uses it', async () => {
  const host = await Host.in();
  await host.addTemplate('a', 'x');
  const config = await configFile(
    JSON.stringify({ templateDir: host.templateDir, clonesDir: host.clonesDir }),
  );
  const { stdout } = await cli(undefined, ['--config', config, 'stacks']);
  expect(stdout).toContain(host.template('a'));
});
