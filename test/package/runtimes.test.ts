// The core of the library (test/matrix/core.cjs) in each way that a program can run it, installed from its tarball with
// the shipped binary. The same with other runtimes, C libraries and processors: npm run test:matrix.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { MiB, makeExt4Image } from '../fixtures/images.js';

const MAJOR = Number(process.versions.node.split('.')[0]);
// Spaces and letters outside ASCII must not matter.
const FOLDER = 'ein Ordner für Gäste 客';

const parent = mkdtempSync(join(tmpdir(), 'user-'));
const app = join(parent, FOLDER);
const modules = join(app, 'node_modules');
const image = join(parent, 'rootfs.ext4');

beforeAll(async () => {
  await makeExt4Image(image, 16 * MiB);
  execFileSync('bash', ['test/matrix/make-app.sh', app], { stdio: 'inherit' });
  if (process.getuid?.() === 0) {
    execFileSync('mount', ['--bind', modules, modules]);
    execFileSync('mount', ['-o', 'remount,bind,ro', modules]);
    expect(() => writeFileSync(join(modules, 'written'), '')).toThrow('EROFS');
  }
}, 120_000);

afterAll(() => {
  spawnSync('umount', ['--lazy', modules]);
  rmSync(parent, { recursive: true, force: true });
});

/** A folder on this file system with a template in it. */
async function folderOn(name: string): Promise<string> {
  const folder = await mkdtemp(join(filesystemNamed(name).path, 'core-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const template = join(folder, 'templates/base/rootfs.ext4');
  await mkdir(dirname(template), { recursive: true });
  await copyFile(image, template);
  return folder;
}

const PERMISSION = [
  MAJOR < 24 ? '--experimental-permission' : '--permission',
  '--allow-addons',
  '--allow-child-process',
  '--allow-fs-read=*',
  '--allow-fs-write=*',
];

test.for([
  ['a CommonJS program', ['program.cjs']],
  ['an ES module', ['program.mjs']],
  ['a worker thread', ['in-worker.cjs']],
  ['a child process', ['in-child.cjs']],
  ['without code from strings', ['--disallow-code-generation-from-strings', 'program.cjs']],
  ['with the permission model', [...PERMISSION, 'program.cjs']],
  ['bundled to CommonJS', ['out/bundled.cjs']],
  ['bundled to an ES module', ['out/bundled.mjs']],
] as [string, string[]][])('%s', { timeout: 60_000 }, async ([, args], { skip }) => {
  const lacking = ['XFS', 'tmpfs'].map((name) => filesystemNamed(name).missing).find(Boolean);
  if (lacking !== undefined) skip(lacking);
  const folders = [await folderOn('XFS'), await folderOn('tmpfs')];
  const { status, stdout, stderr } = spawnSync(process.execPath, [...args, ...folders], {
    cwd: app,
    encoding: 'utf8',
    env: { ...process.env, PREBUILDS_ONLY: '1' },
  });
  expect(status, `${stdout}${stderr}`).toBe(0);
  expect(stdout.trim().split('\n').at(-1)).toBe('38 checks passed');
});

test('without leave to load addons, the error names the option that gives it', () => {
  const program =
    `require('microvm-rootfs').hashFile('/etc/hostname').catch(({ code, message }) => ` +
    'console.log(code, message))';
  const args = PERMISSION.filter((arg) => arg !== '--allow-addons');
  const output = execFileSync(process.execPath, [...args, '-e', program], { cwd: app, encoding: 'utf8' });
  expect(output).toMatch(/^ADDON_NOT_LOADED .*microvm-rootfs\.node: .*--allow-addons/s);
  expect(output).not.toContain('build:addon');
});
