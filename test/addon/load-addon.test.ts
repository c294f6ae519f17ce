// Where the addon's binary is looked for, and what an error says when none serves.
import { execFileSync } from 'node:child_process';
import { cp, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';
import { Host } from '../fixtures/host.js';

const ARCH = process.arch;
const SHIPPED = `prebuilds/linux-${ARCH}/microvm-rootfs.node`;
const BUILT = 'build/Release/microvm_rootfs.node';

/** An installed package without its binaries, in a folder whose name a shell has to be told about. */
async function installedPackage(): Promise<{ user: string; root: string }> {
  const { root: folder } = await Host.in();
  const user = join(folder, "a user's folder");
  const root = join(user, 'node_modules/microvm-rootfs');
  await mkdir(root, { recursive: true });
  for (const name of ['package.json', 'binding.gyp', 'dist'])
    await cp(name, join(root, name), { recursive: true });
  return { user, root };
}

interface Outcome {
  readonly code?: string;
  readonly message?: string;
  readonly causes?: readonly string[];
  readonly loaded?: readonly string[];
}

/** What the first call that needs the addon ends with. */
function callIn(
  user: string,
  env: Readonly<Record<string, string>> = {},
  module = 'microvm-rootfs',
): Outcome {
  const program = `
    require(${JSON.stringify(module)}).hashFile('/etc/hostname').then(
      () => ({ loaded: require('node:fs').readFileSync('/proc/self/maps', 'utf8').match(/\\/.*microvm[-_]rootfs\\.node/g) }),
      (error) => ({ code: error.code, message: error.message, causes: error.cause?.errors?.map(String) }),
    ).then((outcome) => console.log(JSON.stringify(outcome)));`;
  const { PREBUILDS_ONLY: _, ...inherited } = process.env;
  return JSON.parse(
    execFileSync(process.execPath, ['-e', program], {
      cwd: user,
      encoding: 'utf8',
      env: { ...inherited, ...env },
    }),
  );
}

async function place(source: string | Buffer, path: string): Promise<void> {
  await mkdir(join(path, '..'), { recursive: true });
  if (typeof source === 'string') await cp(source, path);
  else await writeFile(path, source);
}

test('no binary: the error names platform, processor, libc, Node, the files and the command', async () => {
  const { user, root } = await installedPackage();
  const { code, message } = callIn(user);
  expect(code).toBe('ADDON_NOT_LOADED');
  expect(message).toMatch(new RegExp(`linux-${ARCH}, (glibc [0-9.]+|musl), Node ${process.version}`));
  expect(message).toContain(`${join(root, BUILT)}: no such file`);
  expect(message).toContain(`${join(root, SHIPPED)}: no such file`);
  expect(message).toContain(`cd '${root.replace("'", "'\\''")}' && npm run build:addon`);
});

test('every binary that failed is listed with its own error, not only the last', async () => {
  const { user, root } = await installedPackage();
  await place(Buffer.from('text, not a binary '.repeat(8)), join(root, BUILT));
  await place(Buffer.from('\x7fELF'), join(root, SHIPPED));
  const { message, causes } = callIn(user);
  expect(message).toMatch(/build\/Release\/microvm_rootfs\.node: .*invalid ELF header/);
  expect(message).toMatch(/prebuilds\/.*\/microvm-rootfs\.node: .*file too short/);
  expect(causes).toHaveLength(2);
});

test('a build that does not load does not stand in the way of the shipped binary', async () => {
  const { user, root } = await installedPackage();
  await place(Buffer.from('text, not a binary '.repeat(8)), join(root, BUILT));
  await place(SHIPPED, join(root, SHIPPED));
  expect(callIn(user).loaded?.[0]).toBe(join(root, SHIPPED));
});

test('a build comes before the shipped binary, unless PREBUILDS_ONLY is set', async () => {
  const { user, root } = await installedPackage();
  await place(SHIPPED, join(root, BUILT));
  await place(SHIPPED, join(root, SHIPPED));
  expect(callIn(user).loaded?.[0]).toBe(join(root, BUILT));
  expect(callIn(user, { PREBUILDS_ONLY: '1' }).loaded?.[0]).toBe(join(root, SHIPPED));
});

test('MICROVM_ROOTFS_ADDON names the one binary that is looked for', async () => {
  const { user, root } = await installedPackage();
  await place(SHIPPED, join(root, SHIPPED));
  const elsewhere = join(user, 'microvm-rootfs.node');
  expect(callIn(user, { MICROVM_ROOTFS_ADDON: elsewhere })).toMatchObject({
    code: 'ADDON_NOT_LOADED',
    message: expect.stringContaining(`${elsewhere}: no such file`),
  });
  await place(SHIPPED, elsewhere);
  for (const named of [elsewhere, './microvm-rootfs.node'])
    expect(callIn(user, { MICROVM_ROOTFS_ADDON: named }).loaded?.[0]).toBe(elsewhere);
});

test('a copy of the code elsewhere, as bundlers make, finds the binary in the installed package', async () => {
  const { user, root } = await installedPackage();
  await place(SHIPPED, join(root, SHIPPED));
  await cp('dist', join(user, 'out'), { recursive: true });
  // The program's own addons.
  await place(SHIPPED, join(user, 'build/Release/own.node'));
  await place(SHIPPED, join(user, `prebuilds/linux-${ARCH}/node.napi.node`));
  expect(callIn(user, {}, './out/index.js').loaded?.[0]).toBe(join(root, SHIPPED));
});

test('a package that is linked in is looked through where it really lies', async () => {
  const { user, root } = await installedPackage();
  await place(SHIPPED, join(root, SHIPPED));
  const other = join(user, 'other');
  await mkdir(join(other, 'node_modules'), { recursive: true });
  await symlink(root, join(other, 'node_modules/microvm-rootfs'));
  expect(callIn(other).loaded?.[0]).toBe(resolve(root, SHIPPED));
});
