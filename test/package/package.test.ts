// The built package as its users load it: by `import` and by `require`, with one identity of each class.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { expect, test } from 'vitest';
import { Host } from '../fixtures/host.js';

const PACKAGE = JSON.parse(readFileSync('package.json', 'utf8'));
const NAME: string = PACKAGE.name;

/** A folder of a user who has installed the package. */
async function userFolder(): Promise<string> {
  const { root } = await Host.in();
  await mkdir(join(root, 'node_modules'));
  await symlink(resolve('.'), join(root, 'node_modules', NAME));
  return root;
}

async function runIn(folder: string, file: string, source: string): Promise<string> {
  await writeFile(join(folder, file), source);
  return execFileSync(process.execPath, [file], {
    cwd: folder,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

const FUNCTIONS = [
  'RootfsError',
  'RootfsRegistry',
  'configFromEnv',
  'hashFile',
  'resizeExt4Image',
  'safeVmId',
];
const CONSTANTS = [
  'CLONE_ROOTFS_FILE',
  'CLONE_SIZE_STAMP_FILE',
  'CLONE_STAMP_FILE',
  'DEFAULT_CLONES_DIR',
  'DEFAULT_E2FSCK_BIN',
  'DEFAULT_MKE2FS_BIN',
  'DEFAULT_RESIZE2FS_BIN',
  'DEFAULT_TEMPLATE_DIR',
  'TEMPLATE_ROOTFS_FILE',
];
const EXPORTS = [
  ...FUNCTIONS,
  ...CONSTANTS,
  'OPERATIONS',
  'SNAPSHOT_MANIFEST_FILE',
  'hashFiles',
  'toCloudHypervisorDisk',
  'toFirecrackerDrive',
  'toQemuDrive',
]
  .sort()
  .join();

test('require gives every export', async () => {
  const folder = await userFolder();
  const names = await runIn(folder, 'a.cjs', `console.log(Object.keys(require('${NAME}')).sort().join())`);
  expect(names.trim()).toBe(EXPORTS);
});

test('import gives the same', async () => {
  const folder = await userFolder();
  const names = await runIn(
    folder,
    'a.mjs',
    `import * as all from '${NAME}';
     console.log(Object.keys(all).filter((name) => name !== 'default').sort().join())`,
  );
  expect(names.trim()).toBe(EXPORTS);
});

test('both are one: an error that one side throws is instanceof on the other', async () => {
  const folder = await userFolder();
  const same = await runIn(
    folder,
    'a.mjs',
    `import { createRequire } from 'node:module';
     import { RootfsError, RootfsRegistry, hashFile } from '${NAME}';
     const required = createRequire(import.meta.url)('${NAME}');
     const error = await required.hashFile('/nonexistent').catch((e) => e);
     console.log(RootfsError === required.RootfsError, RootfsRegistry === required.RootfsRegistry,
       error instanceof RootfsError, error.code);`,
  );
  expect(same.trim()).toBe('true true true ENOENT');
});

test('importing loads no binary: it works where there is none', async () => {
  const folder = await userFolder();
  const loaded = await runIn(
    folder,
    'a.cjs',
    `const { safeVmId } = require('${NAME}');
     const maps = require('node:fs').readFileSync('/proc/self/maps', 'utf8');
     console.log(safeVmId('a/b'), maps.includes('microvm_rootfs.node'));`,
  );
  expect(loaded.trim()).toBe('a_b false');
});

test('on another platform the first call says so', async () => {
  const folder = await userFolder();
  const output = await runIn(
    folder,
    'a.cjs',
    `Object.defineProperty(process, 'platform', { value: 'darwin' });
     require('${NAME}').hashFile('/etc/hostname').catch((e) => console.log(e.code, e.message))`,
  );
  expect(output).toMatch(/^UNSUPPORTED_PLATFORM .*darwin/);
});

test.each([
  [
    'import',
    'user.mts',
    `import { type CloneOptions, RootfsError, RootfsRegistry, type VmRootfs } from '${NAME}';`,
  ],
  [
    'require',
    'user.cts',
    `import lib = require('${NAME}');\nimport RootfsError = lib.RootfsError;\nimport RootfsRegistry = ` +
      `lib.RootfsRegistry;\ntype CloneOptions = lib.CloneOptions;\ntype VmRootfs = lib.VmRootfs;`,
  ],
])('types by %s', { timeout: 60_000 }, async (_how, file, header) => {
  const folder = await userFolder();
  await writeFile(
    join(folder, file),
    `${header}
     const registry = new RootfsRegistry({ clonesDir: '/srv' });
     const options: CloneOptions = { writable: true, owner: { uid: 1, gid: 1 } };
     export const clone: Promise<VmRootfs> = registry.cloneForVm('vm-1', 'debian', options);
     export const code: string = new RootfsError('STACK_NOT_FOUND', '').code;
     // @ts-expect-error an option that does not exist
     void registry.cloneForVm('vm-1', 'debian', { writeable: true });
     // @ts-expect-error results are read-only
     void clone.then((made) => { made.path = ''; });
    `,
  );
  const args = ['--strict', '--noEmit', '--module', 'nodenext', '--target', 'es2023', '--types', '', file];
  const tsc = resolve('node_modules/.bin/tsc');
  expect(
    execFileSync('sh', ['-c', `"${tsc}" ${args.map((arg) => `'${arg}'`).join(' ')} 2>&1 || true`], {
      cwd: folder,
      encoding: 'utf8',
    }),
  ).toBe('');
});

test('every file that package.json names is there', async () => {
  const named = [
    PACKAGE.main,
    PACKAGE.types,
    ...Object.values(PACKAGE.exports['.']).flatMap((entry) => Object.values(entry as object)),
  ];
  for (const path of new Set(named)) expect((await readFile(path as string)).length).toBeGreaterThan(0);
  expect(dirname(PACKAGE.main)).toBe('dist');
});

test('what is loaded on first use needs no loader of ES modules, which Jest lacks', async () => {
  const folder = await userFolder();
  const source = `
    const { readFileSync } = require('node:fs');
    const Module = require('node:module');
    const vm = require('node:vm');
    // As Jest does: without importModuleDynamically.
    Module._extensions['.js'] = (module, path) => {
      const code = Module.wrap(readFileSync(path, 'utf8').replace(/^#!.*/, ''));
      const wrapped = vm.runInThisContext(code, { filename: path });
      wrapped(module.exports, (name) => module.require(name), module, path, require('node:path').dirname(path));
    };
    const { RootfsRegistry } = require('${NAME}');
    const registry = new RootfsRegistry({ templateDir: '${folder}/t', clonesDir: '${folder}/c' });
    const told = (call) => call.then(() => console.log('done'), ({ code }) => console.log(code));
    (async () => {
      await told(registry.usage());
      await told(registry.recover());
      await told(registry.verify());
      await told(registry.removeStack('x'));
    })();`;
  expect(await runIn(folder, 'jest.cjs', source)).toBe('done\ndone\ndone\ndone\n');
});
