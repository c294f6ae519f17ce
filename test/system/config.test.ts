import { join } from 'node:path';
import { expect, test } from 'vitest';
import {
  configFromEnv,
  DEFAULT_CLONES_DIR,
  DEFAULT_E2FSCK_BIN,
  DEFAULT_MKE2FS_BIN,
  DEFAULT_RESIZE2FS_BIN,
  DEFAULT_TEMPLATE_DIR,
  RootfsRegistry,
} from '../../src/index.js';
import { runChild } from '../fixtures/child.js';
import { exists } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { thrown } from '../fixtures/rejection.js';

const DEFAULTS = {
  templateDir: DEFAULT_TEMPLATE_DIR,
  clonesDir: DEFAULT_CLONES_DIR,
  resize2fsBin: DEFAULT_RESIZE2FS_BIN,
  e2fsckBin: DEFAULT_E2FSCK_BIN,
  mke2fsBin: DEFAULT_MKE2FS_BIN,
};

test('what is not given has its default', () => {
  expect(new RootfsRegistry().config).toMatchObject(DEFAULTS);
  expect(new RootfsRegistry({ clonesDir: '/srv/vms' }).config).toMatchObject({
    ...DEFAULTS,
    clonesDir: '/srv/vms',
  });
});

test('an option given as undefined counts as not given', () => {
  expect(new RootfsRegistry({ templateDir: undefined } as object).config.templateDir).toBe(
    DEFAULT_TEMPLATE_DIR,
  );
});

test('options of a prototype and getters of a class count like others', () => {
  class Settings {
    get clonesDir() {
      return '/srv/vms';
    }
  }
  for (const given of [Object.create({ clonesDir: '/srv/vms' }), new Settings()])
    expect(new RootfsRegistry(given).config.clonesDir).toBe('/srv/vms');
});

test('an empty environment variable counts as not set', () => {
  expect(configFromEnv({ MICROVM_ROOTFS_CLONES_DIR: '' }).clonesDir).toBe(DEFAULT_CLONES_DIR);
});

test('a configuration cannot be changed afterwards', () => {
  const { config } = new RootfsRegistry();
  expect(() => {
    (config as { clonesDir: string }).clonesDir = '/elsewhere';
  }).toThrow(TypeError);
});

test('building a registry does no I/O', async () => {
  const host = await Host.in();
  new RootfsRegistry({ templateDir: '/nonexistent', clonesDir: host.clonesDir });
  expect(await exists(host.clonesDir)).toBe(false);
});

test.each([
  ['null', null],
  ['a string', '/srv'],
  ['an unknown option', { cloneDir: '/srv' }],
  ['a number for a path', { clonesDir: 7 }],
  ['an empty path', { clonesDir: '' }],
  ['NUL in a path', { templateDir: '/srv/\0' }],
  ['null for a program', { resize2fsBin: null }],
])('refuses %s', (_what, config) => {
  thrown(() => new RootfsRegistry(config as object), 'INVALID_ARGUMENT');
});

test('the refusal of an unknown option names it', () => {
  expect(
    thrown(() => new RootfsRegistry({ cloneDir: '/srv' } as object), 'INVALID_ARGUMENT').message,
  ).toContain('cloneDir');
});

test('relative folders are of the folder that the registry was made in', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  const child = await runChild(
    `process.chdir(args.root);
     const registry = new lib.RootfsRegistry({ templateDir: './templates', clonesDir: 'clones', resize2fsBin: './tools/resize2fs' });
     process.chdir('/');
     console.log(registry.config.resize2fsBin);
     console.log((await registry.cloneForVm('vm-1', 'debian', { writable: true })).path);
     console.log((await registry.gc({ keep: [], dryRun: true })).released.join());
     console.log(await registry.release('vm-1'));`,
    { root: host.root },
  );
  expect(child.stdout.trim().split('\n')).toEqual([
    join(host.root, 'tools/resize2fs'),
    host.slot('vm-1').image,
    'vm-1',
    'true',
  ]);
});

test.each(['/srv/vms-\ufffd', '/srv/vms-\ud800'])('a folder that is not UTF-8 is refused: %j', (folder) => {
  for (const key of ['templateDir', 'clonesDir', 'snapshotsDir', 'mke2fsBin'])
    expect(thrown(() => new RootfsRegistry({ [key]: folder }), 'INVALID_ARGUMENT').message).toContain(
      `config.${key}`,
    );
});

test('bytes of the environment and of the working folder that are not UTF-8 name no other folder', async () => {
  const { root } = await Host.in();
  const inFolder = 'cd "$0" && b=$(printf "vms-\\377") && mkdir "$b" && cd "$b" && exec "$@"';
  const child = await runChild(
    `for (const make of [() => new lib.RootfsRegistry({ clonesDir: 'vms' }), () => lib.RootfsRegistry.fromEnv()])
       try { make(); } catch (error) { console.log(error.code, error.message); }`,
    {},
    {
      under: ['sh', '-c', `export MICROVM_ROOTFS_CLONES_DIR="$(printf "/srv/\\377")"; ${inFolder}`, root],
    },
  );
  const [ofFolder, ofEnvironment] = child.stdout.split('\n');
  expect(ofFolder).toMatch(/^INVALID_ARGUMENT config\.clonesDir .*not UTF-8/);
  expect(ofEnvironment).toMatch(/^INVALID_ARGUMENT MICROVM_ROOTFS_CLONES_DIR .*not UTF-8/);
});

test.each(['/srv/vms\r', ' /srv/vms', '/srv/vms ', '/srv/\x07vms'])(
  'a folder that the environment gives with stray characters is refused: %j',
  (folder) => {
    thrown(() => configFromEnv({ MICROVM_ROOTFS_CLONES_DIR: folder }), 'INVALID_ARGUMENT');
  },
);

test.each(['"/srv/vms"', "'/srv/vms'", '~/vms', '~vms', '$HOME/vms'])(
  'a folder that the environment gives as for a shell is refused: %s',
  (folder) => {
    const { message } = thrown(
      () => configFromEnv({ MICROVM_ROOTFS_CLONES_DIR: folder }),
      'INVALID_ARGUMENT',
    );
    expect(message).toContain('MICROVM_ROOTFS_CLONES_DIR');
    expect(configFromEnv({ MICROVM_ROOTFS_CLONES_DIR: `./${folder}` }).clonesDir).toMatch(
      /\/vms["']?$|~vms$/,
    );
  },
);
