// The package as npm packs it: what it holds, what linters of packages say of it, and that it needs nothing but Node to
// be installed.
import { execFileSync, spawnSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const PACKAGE = JSON.parse(readFileSync('package.json', 'utf8'));
const folder = mkdtempSync(join(tmpdir(), 'tarball-'));
const tarball = join(folder, `${PACKAGE.name}-${PACKAGE.version}.tgz`);

beforeAll(() => {
  execFileSync('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', folder]);
}, 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const filesIn = (path: string) =>
  readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));

test('it holds what is needed and nothing else', () => {
  const compiled = filesIn('src').flatMap((source) => {
    const [, base, module] = /^src\/(.*)\.(m?)ts$/.exec(source) as RegExpExecArray;
    const file = `dist/${base}.${module}`;
    return [`${file}js`, `${file}js.map`, `dist/${base}.d.${module}ts`];
  });
  const expected = [
    ...['package.json', 'README.md', 'LICENSE', 'CHANGELOG.md', 'UPGRADING.md', 'binding.gyp'],
    ...filesIn('native'),
    ...compiled,
    'prebuilds/linux-x64/microvm-rootfs.node',
    'prebuilds/linux-arm64/microvm-rootfs.node',
  ];
  const held = execFileSync('tar', ['-tzf', tarball], { encoding: 'utf8' }).trim().split('\n');
  expect(held.map((path) => path.replace(/^package\//, '')).sort()).toEqual(expected.sort());
});

test('it has no script that an installation would run', () => {
  const run = ['preinstall', 'install', 'postinstall', 'prepare', 'preprepare', 'postprepare'];
  expect(Object.keys(PACKAGE.scripts).filter((name) => run.includes(name))).toEqual([]);
  // Without this npm runs node-gyp for the sake of binding.gyp.
  expect(PACKAGE.gypfile).toBe(false);
});

test.each([
  ['publint', ['publint', 'run', '--strict', tarball]],
  ['attw', ['attw', tarball]],
])('%s has no complaint', { timeout: 120_000 }, (_name, [tool = '', ...args]) => {
  const { status, stdout, stderr } = spawnSync('npx', ['--no-install', tool, ...args], { encoding: 'utf8' });
  expect(status, `${stdout}${stderr}`).toBe(0);
  expect(stdout).toMatch(/All good!|No problems found/);
});

test('every source map names its source and holds it', () => {
  for (const path of filesIn('dist').filter((name) => name.endsWith('.map'))) {
    const { sources, sourcesContent } = JSON.parse(readFileSync(path, 'utf8'));
    expect(sources).toEqual([expect.stringMatching(/^(\.\.\/)+src\/.*ts$/)]);
    expect(sourcesContent).toEqual([readFileSync(join(dirname(path), sources[0]), 'utf8')]);
  }
});

describe('installed offline, without scripts, compiler or Python', () => {
  const user = join(folder, 'user');
  const bare = join(folder, 'bin');
  const programs = ['node', 'npm'];

  beforeAll(() => {
    mkdirSync(user);
    mkdirSync(bare);
    const needed = Object.keys(PACKAGE.dependencies).map((name) => `./node_modules/${name}`);
    const pack = ['pack', '--silent', '--ignore-scripts', '--pack-destination', folder, ...needed];
    const packed = execFileSync('npm', pack, { encoding: 'utf8' }).trim().split('\n');
    for (const program of programs) {
      symlinkSync(execFileSync('which', [program], { encoding: 'utf8' }).trim(), join(bare, program));
    }
    writeFileSync(join(user, 'package.json'), '{ "private": true }');
    const args = [
      'install',
      '--offline',
      '--ignore-scripts',
      '--no-audit',
      '--no-fund',
      tarball,
      ...packed.map((file) => join(folder, file)),
    ];
    execFileSync(join(bare, 'npm'), args, { cwd: user, env: { ...process.env, PATH: bare }, stdio: 'pipe' });
  }, 120_000);

  const run = (args: readonly string[]) =>
    spawnSync(join(bare, 'node'), args, { cwd: user, env: { PATH: bare }, encoding: 'utf8' });

  test('its binary works', () => {
    writeFileSync(join(user, 'abc'), 'abc');
    const { stdout, stderr } = run(['-e', `require('${PACKAGE.name}').hashFile('abc').then(console.log)`]);
    expect(stdout, stderr).toMatch(/^ba7816bf8f01cfea/);
  });

  test('its command works', () => {
    const { stdout, stderr } = run(['node_modules/.bin/microvm-rootfs', 'hash', 'package.json']);
    expect(stdout, stderr).toMatch(/^[0-9a-f]{64} {2}package\.json\n$/);
  });

  test('a stack trace names the TypeScript, with Node’s own support for source maps', () => {
    const { stderr } = run(['--enable-source-maps', '-e', `require('${PACKAGE.name}').safeVmId(0)`]);
    expect(stderr).toMatch(/microvm-rootfs\/src\/slot\/vm-id\.ts:\d+/);
  });
});

test('docs/dependencies.md gives a reason for each dependency, and the SBOM lists them', () => {
  const names = Object.keys(PACKAGE.dependencies);
  const text = readFileSync('docs/dependencies.md', 'utf8');
  for (const name of [...names, ...Object.keys(PACKAGE.devDependencies)])
    expect(text).toContain(`\`${name}\``);
  const sbom = JSON.parse(execFileSync('npm', ['run', '--silent', 'sbom'], { encoding: 'utf8' }));
  expect(sbom).toMatchObject({ bomFormat: 'CycloneDX' });
  expect(sbom.components.map(({ name }: { name: string }) => name)).toEqual(names);
  for (const { version, licenses } of sbom.components) {
    expect(version).toMatch(/^\d/);
    expect(licenses).not.toEqual([]);
  }
});
