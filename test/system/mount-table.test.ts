// The kernel's list of mounts, names in it that need escaping, and the further paths that bind mounts give a file.
import * as files from 'node:fs/promises';
import { mkdir, realpath, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, test, vi } from 'vitest';
import { mountsBelow } from '../../src/publish/tree/mounts.js';
import { decodeOctal, type MountEntry, mountTable, otherPathsOf } from '../../src/system/mount-table.js';
import { Host } from '../fixtures/host.js';
import { mountBind, mountTmpfs } from '../fixtures/mounts.js';
import { lacksRoot } from '../fixtures/tools.js';
import { shareOfLongestTurn, turnsDuring } from '../fixtures/turns.js';

vi.mock('node:fs/promises', { spy: true });

const mount = (device: string, root: string, point: string): MountEntry => ({ device, root, point });

test('octal is decoded once, and a backslash that begins none stays', () => {
  expect(decodeOctal('a\\040b\\011c\\012d\\134e')).toBe('a b\tc\nd\\e');
  expect(decodeOctal('\\134040')).toBe('\\040');
  expect(decodeOctal('\\134134')).toBe('\\134');
  for (const plain of ['', '/', 'é\u{1f600}', '\\', '\\04', '\\089', 'x\\'])
    expect(decodeOctal(plain)).toBe(plain);
});

const LINES = 20_000;
const JAILS = Array.from(
  { length: LINES },
  (_, i) => `${i + 2} 1 0:25 / /jails/vm\\040${i} rw - tmpfs tmpfs rw`,
);

test('the event loop goes on while a table of many mounts is read', async () => {
  vi.mocked(files.readFile).mockResolvedValueOnce(JAILS.join('\n'));
  const { result, turns } = await turnsDuring(mountTable);
  expect(result).toHaveLength(LINES);
  expect(result.at(-1)).toEqual(mount('0:25', '/', `/jails/vm ${LINES - 1}`));
  expect(turns).toBeGreaterThan(15);
});

test('the event loop goes on while mounts below a folder are looked for among many', async () => {
  const top = inject('scratch');
  const text = [...JAILS, `1 0 0:9 / ${top}/mnt rw - tmpfs tmpfs rw`].join('\n');
  const read = vi.mocked(files.readFile).mockResolvedValue(text);
  try {
    expect(await mountsBelow(top)).toEqual(new Set([`${top}/mnt`]));
    const share = await shareOfLongestTurn(() => mountsBelow(top));
    expect(share).toBeLessThan(0.5);
  } finally {
    read.mockReset();
  }
});

test('paths of nested, root and file mounts are found, and no sibling of a similar name', () => {
  const table = [
    mount('8:1', '/', '/'),
    mount('8:2', '/', '/data'),
    mount('8:2', '/vms', '/srv/vms'),
    mount('8:2', '/vms/a/disk', '/run/disk'),
    mount('8:3', '/vms', '/other'),
  ];
  expect(otherPathsOf('/data/vms/a/disk', table)).toEqual(['/srv/vms/a/disk', '/run/disk']);
  expect(otherPathsOf('/data/vms', table)).toEqual(['/srv/vms']);
  expect(otherPathsOf('/data/vms2/a', table)).toEqual([]);
  expect(otherPathsOf('/data', table)).toEqual([]);
  expect(otherPathsOf('/datax', table)).toEqual([]);
  expect(otherPathsOf('/srv/vms', table)).toContain('/data/vms');
  expect(otherPathsOf('/run/disk', table)).toEqual(
    expect.arrayContaining(['/data/vms/a/disk', '/srv/vms/a/disk']),
  );
});

test('the top of a file system has the paths where it is mounted, and slashes are not doubled', () => {
  const table = [mount('8:1', '/', '/'), mount('8:1', '/', '/mnt'), mount('8:1', '/a', '/b')];
  expect(otherPathsOf('/', table)).toEqual(['/mnt']);
  expect(otherPathsOf('/mnt', table)).toContain('/');
  expect(otherPathsOf('/a', table)).toEqual(['/mnt/a', '/b']);
  expect(otherPathsOf('/mnt/a/x', table)).toEqual(expect.arrayContaining(['/a/x', '/b/x']));
});

test('no mounts, or none above the path, give no other path', () => {
  expect(otherPathsOf('/a', [])).toEqual([]);
  expect(
    otherPathsOf('/a', [mount('8:1', '/', '/b'), mount('0:4', 'net:[4026531840]', '/run/netns/x')]),
  ).toEqual([]);
});

test.for(['with space', 'tab\tand\nline', 'back\\slash', '\\040', 'caf\u00e9 \u{1f600}', 'hash#', ' '])(
  'a real bind mount at %j is listed by its name, and is another path of what is in it',
  async (name, { skip }) => {
    const missing = lacksRoot();
    if (missing !== undefined) skip(missing);
    const { root } = await Host.in(inject('scratch'));
    const [top, place] = [join(root, 'top'), join(root, name)];
    for (const folder of [top, place]) await mkdir(folder);
    mountTmpfs(top);
    await mkdir(join(top, name));
    await writeFile(join(top, name, 'file'), '');
    mountBind(join(top, name), place);
    const mounts = await mountTable();
    const [real, other] = [await realpath(top), await realpath(place)];
    const { device } = mounts.find(({ point }) => point === real) as MountEntry;
    expect(mounts).toContainEqual(mount(device, `/${name}`, other));
    expect(otherPathsOf(join(real, name, 'file'), mounts)).toEqual([join(other, 'file')]);
    expect(otherPathsOf(join(other, 'file'), mounts)).toContain(join(real, name, 'file'));
    expect((await stat(join(other, 'file'))).ino).toBe((await stat(join(real, name, 'file'))).ino);
  },
);

test('a file that is mounted on a file has both paths, and links are no mounts', async ({ skip }) => {
  const missing = lacksRoot();
  if (missing !== undefined) skip(missing);
  const root = await realpath((await Host.in(inject('scratch'))).root);
  for (const name of ['image', 'place']) await writeFile(join(root, name), name);
  await symlink('image', join(root, 'link'));
  const before = otherPathsOf(join(root, 'image'), await mountTable());
  mountBind(join(root, 'image'), join(root, 'place'));
  const after = otherPathsOf(join(root, 'image'), await mountTable());
  expect(after.filter((path) => !before.includes(path))).toEqual([join(root, 'place')]);
  expect(otherPathsOf(join(root, 'link'), await mountTable())).not.toContain(join(root, 'image'));
});
