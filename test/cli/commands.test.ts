// What each command does, and the documents that it prints: their keys are a promise (docs/cli.md).
import { spawn } from 'node:child_process';
import { copyFile, mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { EXIT } from '../../src/cli/exit-codes.js';
import { exitOf } from '../fixtures/child.js';
import { describeEachFilesystem, filesystemNamed } from '../fixtures/each-filesystem.js';
import { exists, sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { dumpSuperblock, MiB } from '../fixtures/images.js';
import { cli, cliEnvironment, cliError, cliJson, MAIN } from './run-cli.js';

const CLONE_KEYS = [
  'vmId',
  'stack',
  'path',
  'sourceSha256',
  'sizeBytes',
  'strategy',
  'sharesTemplateInode',
  'reused',
  'pooled',
  'attempts',
];

interface Clone {
  readonly path: string;
  readonly strategy: string;
  readonly reused: boolean;
  readonly pooled: boolean;
  readonly sizeBytes: number;
}

/** Each way of cloning once; the library's own tests go through all file systems. */
const inPart = ({ name }: { name: string }) => ['XFS', 'btrfs', 'ext4', 'tmpfs'].includes(name);

async function hostWithTemplate(filesystem = 'XFS'): Promise<Host> {
  const host = await Host.in(filesystemNamed(filesystem).path);
  await host.addExt4Template('debian', 4 * MiB);
  return host;
}

test('stacks lists the templates', async () => {
  const host = await hostWithTemplate();
  const sha256 = await sha256Of(host.template('debian'));
  const listed = await cliJson(host, ['stacks']);
  expect(listed).toEqual({
    stacks: [{ name: 'debian', templatePath: host.template('debian'), sizeBytes: 4 * MiB, sha256 }],
  });
  const { stdout } = await cli(host, ['stacks']);
  expect(stdout).toBe(
    [
      `STACK    SIZE  SHA-256       PATH`,
      `debian  4 MiB  ${sha256.slice(0, 12)}  ${host.template('debian')}`,
      '',
    ].join('\n'),
  );
});

test('a name that breaks lines or turns the writing is one line, for people and for programs', async () => {
  const host = await hostWithTemplate();
  const [stack, shownStack] = ['a\nb\u2028c\u202ed\u009be', 'a\\x0ab\\u{2028}c\\u{202e}d\\x9be'];
  const [snapshot, shownSnapshot] = ['b\u2029c\u2066d', 'b\\u{2029}c\\u{2066}d'];
  await host.addExt4Template(stack, 4 * MiB);
  await host.registry.cloneForVm('vm-1', stack, { writable: true });
  await host.registry.snapshotSlot('vm-1', snapshot);
  const lines = (text: string) => text.trimEnd().split(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
  for (const [args, shown] of [
    [['prewarm', stack], shownStack],
    [['--json', 'prewarm', stack, '--count', '0'], '"a\\nb\\u2028c\\u202ed\\u009be"'],
    [['verify', snapshot], shownSnapshot],
    [['rm-snapshot', snapshot], shownSnapshot],
    [['rm-stack', stack, '--force'], shownStack],
  ] as const) {
    const { stdout } = await cli(host, args);
    expect(stdout).toContain(shown);
    expect(lines(stdout), args[0]).toHaveLength(args[0] === '--json' ? 4 : 1);
  }
});

test('bytes that are no UTF-8 are refused: two VMs would have one id', async () => {
  const host = await hostWithTemplate();
  const { code, stderr, stdout } = await exitOf(
    spawn('sh', ['-c', `exec "$0" "$1" clone "$(printf 'vm\\377')" debian`, process.execPath, MAIN], {
      env: cliEnvironment(host),
    }),
  );
  expect([code, stdout]).toEqual([2, '']);
  expect(stderr).toContain('is not UTF-8');
  expect(await host.slotNames()).toEqual([]);
});

test('stacks says so where there are none', async () => {
  const host = await Host.in();
  expect(await cliJson(host, ['stacks'])).toEqual({ stacks: [] });
  expect((await cli(host, ['stacks'])).stdout).toBe(`No templates in ${host.templateDir}.\n`);
  const misspelt = { ...host, templateDir: `${host.templateDir}x` };
  expect((await cli(misspelt, ['stacks'])).stdout).toBe(`There is no folder ${misspelt.templateDir}.\n`);
});

describeEachFilesystem((filesystem) => {
  test('clone, grown and again, then release', async () => {
    const host = await Host.in(filesystem.path);
    await host.addExt4Template('debian', 4 * MiB);
    const args = ['clone', 'vm-1', 'debian', '--size', '8M', '--writable', '--mode', '0640'];
    const clone = await cliJson<Clone>(host, args);
    expect(Object.keys(clone)).toEqual(CLONE_KEYS);
    const strategy = filesystem.reflinks ? 'reflink' : 'copy';
    expect(clone).toMatchObject({ strategy, reused: false, sizeBytes: 8 * MiB });
    expect((await dumpSuperblock(clone.path)).blockCount).toBe((8 * MiB) / 1024);
    expect((await stat(clone.path)).mode & 0o777).toBe(0o640);

    expect(await cliJson<Clone>(host, args)).toMatchObject({ reused: true });

    expect(await cliJson(host, ['release', 'vm-1', 'vm-2'])).toEqual({
      released: [
        { vmId: 'vm-1', released: true },
        { vmId: 'vm-2', released: false },
      ],
    });
    expect(await host.slotNames()).toEqual([]);
    // The space is given back before the command ends.
    expect(await host.leftovers()).toEqual([]);
  });
}, inPart);

test('clone warns of a hardlink and names the options that decide about it', async () => {
  const host = await hostWithTemplate('ext4');
  const { code, stderr } = await cli(host, ['clone', 'vm-1', 'debian']);
  expect(code).toBe(0);
  expect(stderr).toMatch(
    /^microvm-rootfs: warning: .*hardlinks.*Pass --writable for copies, or --read-only/m,
  );
  const json = await cli(host, ['clone', 'vm-3', 'debian', '--json']);
  expect(JSON.parse(json.stderr)).toEqual({
    warning: { code: 'MICROVM_ROOTFS_SHARED_INODE', message: expect.stringContaining('--writable') },
  });
  expect(JSON.parse(json.stdout)).toMatchObject({ sharesTemplateInode: true });
  const quiet = await cli(host, ['clone', 'vm-2', 'debian', '--read-only']);
  expect(quiet).toMatchObject({ code: 0, stderr: '' });
  expect(quiet.stdout).toMatch(/^How +hardlink, made now, it is the template itself/m);
});

test('grow takes a clone to its size, and makes none', async () => {
  const host = await hostWithTemplate();
  const grow = ['grow', 'vm-1', '8MiB', '--stack', 'debian'];
  expect(await cliError(host, grow)).toBe('SLOT_NOT_FOUND 3');
  expect(await host.slotNames()).toEqual([]);
  await cliJson(host, ['clone', 'vm-1', 'debian', '--writable']);
  const grown = await cliJson<Clone>(host, grow);
  expect(Object.keys(grown)).toEqual(CLONE_KEYS);
  expect((await dumpSuperblock(grown.path)).blockCount).toBe((8 * MiB) / 1024);
  expect(await cliError(host, ['grow', 'vm-1', '16MiB', '--stack', 'debian'])).toBe('SIZE_STAMP_MISMATCH 4');
  expect(await cliError(host, ['grow', 'vm-1', '1MiB', '--stack', 'debian'])).toBe('SHRINK_REFUSED 4');
});

test('grow --image grows any image in place', async () => {
  const host = await hostWithTemplate();
  const path = host.template('debian');
  const grown = await cliJson(host, ['grow', '--image', 'debian/rootfs.ext4', '8M'], {
    cwd: host.templateDir,
  });
  expect(grown).toEqual({ path, sizeBytes: 8 * MiB });
  expect((await dumpSuperblock(path)).blockCount).toBe((8 * MiB) / 1024);
});

test('.. behind a symbolic link leads where the kernel says', async () => {
  const host = await hostWithTemplate();
  const { root } = host;
  for (const folder of ['A', 'B/sub']) await mkdir(join(root, folder), { recursive: true });
  await symlink('../B/sub', join(root, 'A/link'));
  for (const folder of ['A', 'B']) {
    await copyFile(host.template('debian'), join(root, folder, 'img'));
    await writeFile(join(root, folder, 'mem'), folder);
  }
  const cwd = { cwd: root };
  await cliJson(host, ['grow', '--image', 'A/link/../img', '8M'], cwd);
  expect([(await stat(join(root, 'A/img'))).size, (await stat(join(root, 'B/img'))).size]).toEqual([
    4 * MiB,
    8 * MiB,
  ]);
  expect(await cliJson(host, ['publish', 'of-b', 'A/link/../img'], cwd)).toMatchObject({
    sizeBytes: 8 * MiB,
  });
  await cliJson(host, ['clone', 'vm-1', 'debian', '--writable']);
  const { path } = await cliJson<{ path: string }>(host, ['snapshot', 'vm-1', 's', 'A/link/../mem'], cwd);
  expect(await readFile(join(path, 'mem'), 'utf8')).toBe('B');
  await cliJson(host, ['export', 'vm-1', 'A/link/../exported'], cwd);
  expect([await exists(join(root, 'A/exported')), await exists(join(root, 'B/exported'))]).toEqual([
    false,
    true,
  ]);
  for (const words of [
    ['grow', '--image', '', '8M'],
    ['export', 'vm-1', ''],
    ['publish', 'x', ''],
  ])
    expect(await cliError(host, words, cwd)).toBe('INVALID_ARGUMENT 2');
});

test('prewarm leaves ready slots that a scheduler finds', async () => {
  const host = await hostWithTemplate();
  const ready = async () =>
    (await readdir(join(host.clonesDir, '.microvm-rootfs', 'pool'))).filter(
      (name) => !name.endsWith('.json'),
    );
  expect(await cliJson(host, ['prewarm', 'debian', '--count', '2'])).toEqual({ stack: 'debian', count: 2 });
  const made = await ready();
  expect(made).toHaveLength(2);
  await host.registry.prewarm('debian', { count: 2 });
  expect(await ready()).toEqual(made);
  expect(await host.registry.cloneForVm('vm-1', 'debian', { writable: true })).toMatchObject({
    pooled: true,
  });
});

test('gc tells what it would release, and with --yes releases it', async () => {
  const host = await hostWithTemplate();
  for (const vm of ['vm-1', 'a/b', 'vm-3']) await cliJson(host, ['clone', vm, 'debian', '--writable']);
  const [none, would] = [[] as string[], ['a/b', 'vm-1']];
  const args = ['gc', '--keep', 'vm-3'];
  const dry = await cliJson<{ released: string[] }>(host, args);
  expect({ ...dry, released: dry.released.sort() }).toEqual({
    dryRun: true,
    released: would,
    inUse: none,
    unknown: none,
  });
  expect(await host.slotNames()).toHaveLength(3);
  const human = await cli(host, args);
  expect(human.stdout).toMatch(/add --yes to release 2 clones\.\n$/);

  const file = join(host.root, 'keep');
  await writeFile(file, 'a/b\n\n');
  const real = await cliJson(host, [...args, '--keep-file', file, '--yes']);
  expect(real).toEqual({ dryRun: false, released: ['vm-1'], inUse: none, unknown: none });
  const piped = await cliJson(host, ['gc', '--keep-file', '-', '--yes'], { input: 'vm-3\r\n' });
  expect(piped).toMatchObject({ released: ['a/b'] });
  expect(await host.slotNames()).toEqual(['vm-3']);
});

test('gc keeps the VMs of every list that it is given', async () => {
  const host = await hostWithTemplate();
  for (const vm of ['vm-1', 'vm-2', 'vm-3', 'vm-4', 'vm-5'])
    await cliJson(host, ['clone', vm, 'debian', '--writable']);
  for (const vm of ['vm-1', 'vm-2', 'vm-9']) await writeFile(join(host.root, vm), `${vm}\n`);
  const lists = ['--keep', 'vm-3', '--keep-file', 'vm-1', '--keep-file', 'vm-2', '--keep', 'vm-4'];
  // Each must name somebody here, not just one of them.
  const stale = ['gc', '--yes', ...lists, '--keep-file', 'vm-9'];
  expect(await cliError(host, stale, { cwd: host.root })).toBe('INVALID_ARGUMENT 2');
  const twice = ['gc', '--yes', ...lists, '--keep-file', '-', '-', '/dev/stdin'];
  expect(await cliError(host, twice, { cwd: host.root, input: 'vm-5\n' })).toBe('INVALID_ARGUMENT 2');
  expect(await cliJson(host, ['gc', '--yes', ...lists], { cwd: host.root })).toMatchObject({
    released: ['vm-5'],
  });
  expect((await host.slotNames()).sort()).toEqual(['vm-1', 'vm-2', 'vm-3', 'vm-4']);
});

test('gc does nothing unless it is told what to keep', async () => {
  const host = await hostWithTemplate();
  await cliJson(host, ['clone', 'vm-1', 'debian', '--writable']);
  expect(await cliError(host, ['gc', '--yes'])).toBe('INVALID_ARGUMENT 2');
  expect(await cliError(host, ['gc', '--yes', '--keep-file', '-'])).toBe('INVALID_ARGUMENT 2');
  expect(await cliError(host, ['gc', '--yes', '--keep-file', '/nonexistent'])).toBe('ENOENT 3');
  const folder = { under: ['sh', '-c', 'exec "$@" < /', 'sh'] };
  const { stderr } = await cli(host, ['gc', '--yes', '--keep-file', '-'], folder);
  expect(stderr).toContain('INVALID_ARGUMENT: standard input is a folder');
  expect(await cliError(host, ['gc', '--yes', '--keep-none', '--keep', 'vm-1'])).toBe('USAGE 2');
  for (const blank of ['', ' ', '\u200b'])
    expect(await cliError(host, ['gc', '--yes', '--allow-no-match', '--keep', blank])).toBe(
      'INVALID_ARGUMENT 2',
    );
  expect(await host.slotNames()).toEqual(['vm-1']);
  expect(await cliJson(host, ['gc', '--yes', '--keep-none'])).toMatchObject({ released: ['vm-1'] });
});

test('gc releases nothing by a list that names nobody here, unless it is told to', async () => {
  const host = await hostWithTemplate();
  await cliJson(host, ['clone', 'vm-1', 'debian', '--writable']);
  const gc = ['gc', '--yes', '--keep-file', '-'];
  for (const input of [
    '',
    '\r\n \r\n',
    'Error: connection refused\n',
    '["vm-1"]\n',
    'vm-1 # first\n',
    'vm-1\0',
  ]) {
    const failed = await cli(host, ['--json', ...gc], { input });
    expect([failed.code, JSON.parse(failed.stderr).error.code]).toEqual([2, 'INVALID_ARGUMENT']);
  }
  // One list that is right does not speak for another.
  expect((await cli(host, [...gc, '--keep', 'vm-1'], { input: '' })).code).toBe(2);
  expect(await host.slotNames()).toEqual(['vm-1']);
  const utf16 = Buffer.from('\ufeffvm-1\r\n', 'utf16le');
  await writeFile(join(host.root, 'utf16'), utf16);
  expect(await cliJson(host, ['gc', '--yes', '--keep-file', join(host.root, 'utf16')])).toMatchObject({
    released: [],
  });
  const told = await cliJson(host, [...gc, '--allow-no-match'], { input: 'vm-9\n' });
  expect(told).toMatchObject({ released: ['vm-1'] });
});

test('recover tells what it put in order', async () => {
  const host = await hostWithTemplate();
  await cliJson(host, ['clone', 'vm-1', 'debian', '--writable']);
  await writeFile(host.slot('vm-1').stamp, '');
  const report = await cliJson(host, ['recover']);
  expect(Object.keys(report)).toEqual([
    'stagingRemoved',
    'trashRemoved',
    'sealedRemoved',
    'pooledRemoved',
    'tornSlots',
    'tornInUse',
    'unstamped',
    'unknown',
    'settledSlots',
    'notSwept',
  ]);
  expect(report.tornSlots).toEqual(['vm-1']);
});

test('verify fails if something differs', async () => {
  const host = await hostWithTemplate('ext4');
  await cliJson(host, ['clone', 'vm-1', 'debian', '--writable']);
  expect(await cliJson(host, ['verify', '--with-clones'])).toEqual({
    templates: 1,
    sealedImages: 0,
    clones: 1,
    templatesNotRead: [],
    differences: [],
  });
  await host.addTemplate('new', 'new');
  expect((await cli(host, ['verify'])).stdout).toContain(`Not read: ${host.template('new')}, `);
  const image = host.slot('vm-1').image;
  const bytes = await readFile(image);
  bytes.write('its guest was here', 1024 * 1024);
  await writeFile(image, bytes);
  const { code, stdout } = await cli(host, ['verify', '--with-clones', '--json']);
  expect(code).toBe(1);
  const [difference] = JSON.parse(stdout).differences;
  expect(Object.keys(difference)).toEqual(['kind', 'path', 'expected', 'found']);
  expect(difference).toMatchObject({ kind: 'clone', path: image });
  expect((await cli(host, ['verify', '--with-clones'])).stdout).toMatch(/1 clone: 1 difference\.\n/);
});

test('hash prints what sha256sum does, odd names too', async () => {
  const host = await Host.in();
  const odd = join(host.root, 'new\nline');
  const paths = [join(host.root, 'abc'), odd];
  for (const path of paths) await writeFile(path, 'abc');
  const { stdout } = await cli(host, ['hash', ...paths]);
  const sha256 = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad';
  expect(stdout).toBe(`${sha256}  ${paths[0]}\n\\${sha256}  ${host.root}/new\\nline\n`);
  expect(await cliJson(host, ['hash', ...paths])).toEqual({
    files: paths.map((path) => ({ path, sha256, sizeBytes: 3 })),
  });
});

test('hash prints those before and behind the ones that fail', async () => {
  const host = await Host.in();
  await writeFile(join(host.root, 'abc'), 'abc');
  const { code, stdout, stderr } = await cli(host, ['hash', 'abc', 'none', './abc'], { cwd: host.root });
  expect(stdout).toMatch(/^ba7816.* abc\nba7816.* .\/abc\n$/);
  expect(stderr).toMatch(/^microvm-rootfs: ENOENT: hashing none: .*\n$/);
  expect(code).toBe(3);
  const several = await cli(host, ['hash', 'none', '.', 'abc', '--json'], { cwd: host.root });
  expect(JSON.parse(several.stdout).files).toMatchObject([{ path: 'abc' }]);
  expect(JSON.parse(several.stderr).error).toMatchObject({
    code: 'ENOENT',
    message: expect.stringMatching(/^2 failed: none, \.\. First error \(none\): hashing none: /),
  });
  expect(several.code).toBe(3);
});

test('bench measures in the clones folder and leaves nothing there', async () => {
  const host = await hostWithTemplate();
  const speed = await cliJson(host, ['bench', '--size', '1M', '--rounds', '2']);
  expect(Object.keys(speed)).toEqual(['imageBytes', 'rounds', 'strategy', 'cloneMicros', 'cpMicros']);
  expect(speed).toMatchObject({ imageBytes: MiB, rounds: 2, strategy: 'reflink' });
  expect(await exists(host.clonesDir)).toBe(true);
  expect((await cli(host, ['bench', '--size', '1M', '--rounds', '1'])).stdout).toMatch(
    /^Clone +.* by reflink$/m,
  );
  expect(await host.slotNames()).toEqual([]);
});

test('a folder that is misspelt is told of, and nothing passes for checked', async () => {
  const host = await Host.in();
  const nowhere = `${host.root}/nowhere`;
  const folders = { templateDir: `${nowhere}-either`, clonesDir: nowhere };
  for (const words of [['gc', '--keep', 'vm-1'], ['pool'], ['snapshots'], ['usage']]) {
    const { code, stderr } = await cli(folders, words);
    expect([words[0], code, stderr]).toEqual([
      words[0],
      0,
      `microvm-rootfs: there is no folder ${nowhere}\n`,
    ]);
  }
  expect((await cli(folders, ['verify'])).code).toBe(EXIT.notFound);
});

test('a benchmark leaves half of the disk to the VMs', async () => {
  const host = await Host.in();
  const { code, stderr } = await cli(host, ['bench', '--size', '1000T']);
  expect(code).toBe(EXIT.system);
  expect(stderr).toMatch(/ENOSPC: .* free: measuring with an image of .*name a smaller --size/);
  expect(await readdir(host.clonesDir)).toEqual([]);
});

test('options that do not go together, and numbers of no sense, are wrong use', async () => {
  const host = await Host.in();
  for (const words of [
    ['grow', '--image', '/tmp/x', '16M', '--stack', 'a'],
    ['verify', '--with-clones', 'snap'],
    ['export', 'vm-1', `${host.root}/new/`],
    ['bench', '--rounds', '0'],
  ]) {
    const { code, stderr } = await cli(host, words);
    expect([words[0], code]).toEqual([words[0], EXIT.usage]);
    expect(stderr).not.toBe('');
  }
});
