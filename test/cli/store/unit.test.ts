// Units of systemd, for paths of any name: what systemd reads of them is what was meant.
import { execFileSync } from 'node:child_process';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { escapePath, unitsFor } from '../../../src/cli/store/unit.js';
import { Host } from '../../fixtures/host.js';
import { Random } from '../../fixtures/random.js';
import { rejection } from '../../fixtures/rejection.js';

/** An image by its magic alone. */
async function imageNamed(name: string): Promise<string> {
  const path = join((await Host.in(inject('scratch'))).root, name);
  await mkdir(join(path, '..'), { recursive: true });
  await writeFile(path, `XFSB${'\0'.repeat(4096)}`);
  return path;
}

/** The words of a setting, as systemd splits them: systemd.syntax(7), with quotes, backslashes, % and $ undone. */
function wordsOf(text: string, setting: string): string[] {
  const line = new RegExp(`^${setting}=(.*)$`, 'm').exec(text)?.[1] ?? '';
  return [...line.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map(([, quoted, plain]) =>
    (quoted?.replace(/\\(.)/g, '$1') ?? (plain as string))
      .replaceAll('%%', '%')
      // Only commands have variables.
      .replaceAll(setting.startsWith('Exec') ? '$$' : '$', '$'),
  );
}

test.each([
  'store.img',
  'with space.img',
  '100%.img',
  '$HOME.img',
  'quo"te.img',
  "apo'strophe.img",
  'back\\slash.img',
  '%n',
  'ü.img',
  '$a/$$b.img',
  '-x',
  'a;b',
  '#c',
])('an image named %j is the one that is mounted and checked', async (name) => {
  const image = await imageNamed(name);
  const [mount, check] = await unitsFor(image, '/srv/vms $x');
  expect(/^What=(.*)$/m.exec(mount.text)?.[1]?.replaceAll('%%', '%')).toBe(image);
  expect(mount.text).toContain('Where=/srv/vms $x\n');
  const words = wordsOf(check.text, 'ExecStart');
  expect(words.slice(2)).toEqual(['store', 'check', image]);
  const folder = join(image, '..');
  expect(wordsOf(check.text, 'RequiresMountsFor')).toContain(folder);
  expect(wordsOf(mount.text, 'RequiresMountsFor')).toEqual([folder]);
  expect(mount.name).toBe('srv-vms\\x20\\x24x.mount');
  expect(mount.text).toContain(`Requires=${check.name}\n`);
});

test.each([
  'line\nExecStart=/bin/evil',
  'cr\rx',
  'tab\tx',
  'nul\x1bx',
  'ends in space ',
  'ends in \\',
  'ends\u3000',
])('a path with %j cannot be in a unit, as an image or as a folder', async (name) => {
  const image = await imageNamed(name);
  for (const [what, where] of [
    [image, '/srv/vms'],
    [await imageNamed('x'), `/srv/${name}`],
  ] as const) {
    const { message } = await rejection(unitsFor(what, where), 'INVALID_ARGUMENT');
    expect(message).not.toMatch(/\p{Cc}/u);
  }
});

test('a sparse image gives space back, a reserved one does not', async () => {
  const path = join((await Host.in(inject('scratch'))).root, 'x');
  await writeFile(path, `XFSB${'x'.repeat(100_000)}`);
  expect((await unitsFor(path, '/m'))[0].text).toContain('Options=loop,nodiscard\n');
  execFileSync('truncate', ['-s', '10M', path]);
  expect((await unitsFor(path, '/m'))[0].text).toContain('Options=loop,discard\n');
});

test('a file that is no store, or not there, has no units', async () => {
  const { root } = await Host.in(inject('scratch'));
  await writeFile(join(root, 'x'), 'something else');
  await rejection(unitsFor(join(root, 'x'), '/m'), 'STORE_INVALID');
  await rejection(unitsFor(join(root, 'missing'), '/m'), 'STORE_NOT_FOUND');
  await rejection(unitsFor(root, '/m'), 'STORE_INVALID');
});

test('names are escaped as systemd-escape does', ({ skip }) => {
  try {
    execFileSync('systemd-escape', ['--version'], { stdio: 'pipe' });
  } catch {
    skip('needs systemd-escape (package systemd)');
  }
  const random = new Random(161);
  const letters = [...'ab-_.:/\\ %$"\'@+~', 'ü', '😀', '\n'];
  const paths = Array.from(
    { length: 200 },
    () => `/${Array.from({ length: 1 + random.below(12) }, () => random.pick(letters)).join('')}`,
  ).filter((path) => !/(^|\/)\.\.?(\/|$)/.test(path));
  // The program prints the results between spaces, which it escapes.
  const told = execFileSync('systemd-escape', ['--path', '--', ...paths], { encoding: 'utf8' });
  expect(told.trim().split(' ')).toEqual(paths.map(escapePath));
});

test('the folder is the one that systemd mounts on, behind no symbolic link', async () => {
  const { root } = await Host.in(inject('scratch'));
  await mkdir(join(root, 'data'));
  await symlink(join(root, 'data'), join(root, 'srv'));
  const [mount, check] = await unitsFor(await imageNamed('x'), join(root, 'srv/vms'));
  expect(mount.text).toContain(`Where=${root}/data/vms\n`);
  expect(mount.name).toBe(`${escapePath(join(root, 'data/vms'))}.mount`);
  expect(check.text).toContain(`ConditionPathIsMountPoint=!${root}/data/vms\n`);
});

test('a folder that store mount refuses has no units', async () => {
  const image = await imageNamed('x/store.img');
  const root = join(image, '../..');
  await symlink(root, join(root, 'x/link'));
  for (const folder of ['/', root, join(root, 'x/link'), image])
    await rejection(unitsFor(image, folder), 'MOUNT_POINT_REFUSED');
  await mkdir(join(root, 'vms/vm-1'), { recursive: true });
  await rejection(unitsFor(image, join(root, 'vms')), 'MOUNT_POINT_NOT_EMPTY');
  await rejection(unitsFor(image, '/proc'), 'MOUNT_POINT_IN_USE');
});

test('the image is the file itself, behind no symbolic link', async () => {
  const image = await imageNamed('data/store.img');
  const link = join(image, '../../link.img');
  await symlink(image, link);
  expect(await unitsFor(link, '/srv/vms')).toEqual(await unitsFor(image, '/srv/vms'));
  const odd = join(image, '../../odd');
  await symlink(await imageNamed('line\nbreak/store.img'), odd);
  await rejection(unitsFor(odd, '/srv/vms'), 'INVALID_ARGUMENT');
});
