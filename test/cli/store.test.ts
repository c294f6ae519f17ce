// Stores on real loop mounts: made, used, grown, checked, removed; and everything that may not happen to them.
import { execFileSync } from 'node:child_process';
import { chmod, mkdir, open, readFile, rm, stat, statfs, symlink, unlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { EXIT } from '../../src/cli/exit-codes.js';
import type { StoreKind } from '../../src/cli/store/kinds.js';
import type { StoreStatus } from '../../src/cli/store/status.js';
import { escapePath } from '../../src/cli/store/unit.js';
import { exitOf } from '../fixtures/child.js';
import { exists, walk } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';
import { newWorkspace } from '../fixtures/workspace.js';
import { cli, cliError, cliJson, startCli } from './run-cli.js';
import {
  create,
  ext4Host,
  isMounted,
  needStores,
  pathOf,
  type StoreHost,
  sized,
  unmount,
  withProgram,
} from './store/store-host.js';

const STATUS_KEYS = [
  'image',
  'fs',
  'sizeBytes',
  'allocatedBytes',
  'mountPoint',
  'device',
  'usedBytes',
  'freeBytes',
  'slots',
];

needStores('mkfs.btrfs');

describe.each<StoreKind>(['xfs', 'btrfs'])('%s', { timeout: 120_000 }, (fs) => {
  test('from creation to removal', async () => {
    const host = await ext4Host();
    await mkdir(host.clonesDir, { mode: 0o750 });
    const made = await create(host, '--fs', fs);
    expect(Object.keys(made)).toEqual(STATUS_KEYS);
    expect(made).toMatchObject({
      image: host.image,
      fs,
      sizeBytes: 300 * MiB,
      mountPoint: host.clonesDir,
      slots: 0,
    });
    expect(made.allocatedBytes).toBeGreaterThanOrEqual(300 * MiB);
    expect((await stat(host.clonesDir)).mode & 0o7777).toBe(0o750);
    expect((await stat(host.image)).mode & 0o777).toBe(0o600);

    expect(await cliJson(host, ['clone', 'vm-1', 'debian', '--writable'])).toMatchObject({
      strategy: 'reflink',
    });

    // What was reserved stays so.
    try {
      execFileSync('fstrim', [host.clonesDir], { stdio: 'pipe' });
    } catch {
      // The device does not discard.
    }
    expect((await stat(host.image)).blocks * 512).toBeGreaterThanOrEqual(300 * MiB);

    // While a clone is in use.
    const inUse = await open(host.slot('vm-1').image, 'r+');
    const grown = await cliJson<StoreStatus>(host, ['store', 'grow', host.image, '400M']);
    expect(grown).toMatchObject({ sizeBytes: 400 * MiB, slots: 1 });
    expect(grown.allocatedBytes).toBeGreaterThanOrEqual(400 * MiB);
    expect(grown.freeBytes).toBeGreaterThan((made.freeBytes ?? 0) + 50 * MiB);
    expect(await cliError(host, ['store', 'grow', host.image, '300M'])).toBe('SHRINK_REFUSED 4');
    expect(await cliJson(host, ['store', 'status'])).toMatchObject({
      image: host.image,
      sizeBytes: 400 * MiB,
    });

    expect(await cliError(host, ['store', 'rm', host.image])).toBe('STORE_NOT_EMPTY 4');
    expect(await cliError(host, ['store', 'rm', host.image, '--force'])).toBe('STORE_IN_USE 4');
    expect(await cliError(host, ['store', 'check', host.image])).toBe('STORE_IN_USE 4');
    expect(await cliError(host, ['store', 'mount', host.image])).toBe('STORE_IN_USE 4');
    await inUse.close();

    unmount(host.clonesDir);
    expect(await cliJson(host, ['store', 'check', host.image])).toEqual({
      image: host.image,
      fs,
      clean: true,
    });
    const away = await cliJson(host, ['store', 'status', host.image]);
    expect(away).toMatchObject({
      mountPoint: null,
      device: null,
      usedBytes: null,
      freeBytes: null,
      slots: null,
    });
    expect(await cliError(host, ['store', 'rm', host.image])).toBe('STORE_NOT_EMPTY 4');
    expect(await cliError(host, ['store', 'grow', host.image, '500M'])).toBe('STORE_NOT_MOUNTED 4');
    expect(await cliJson(host, ['store', 'mount', host.image])).toMatchObject({ slots: 1 });
    expect(await cliJson(host, ['clone', 'vm-1', 'debian'])).toMatchObject({ reused: true });

    await cliJson(host, ['release', 'vm-1']);
    // As a process leaves it that was killed after it had taken out another slot than it meant.
    for (const above of ['', 'snapshots/.microvm-rootfs/']) {
      const session = join(host.clonesDir, `.microvm-rootfs/${above}staging/1-aaaaaaaaaaaaaaaa`);
      await mkdir(join(session, 'v1.2.1'), { recursive: true });
      expect(await cliError(host, ['store', 'rm', host.image]), above).toBe('STORE_NOT_EMPTY 4');
      await rm(session, { recursive: true });
    }
    // What an operator put away where nothing of ours is called so.
    for (const name of [
      '.microvm-rootfs/notes',
      '.microvm-rootfs/snapshots/.notes',
      '.microvm-rootfs.before',
    ]) {
      const path = join(host.clonesDir, name);
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, 'keep');
      expect(await cliError(host, ['store', 'rm', host.image]), name).toBe('STORE_NOT_EMPTY 4');
      await rm(path);
    }
    expect(await cliJson(host, ['store', 'rm', host.image])).toEqual({ removed: host.image });
    expect(await exists(host.image)).toBe(false);
    expect(isMounted(host.clonesDir)).toBe(false);
    expect(await walk(host.clonesDir)).toEqual([]);
  });

  test('a disk that fills up later takes nothing from what was reserved', async () => {
    const host = await ext4Host(500 * MiB);
    const made = await create(host, '--fs', fs);
    await fillUp(host.root);
    // All that the store says is free can be written, and is on the disk when that is asked for.
    const file = await open(join(host.clonesDir, 'data.of.a.guest'), 'w');
    const block = Buffer.alloc(MiB, 'guest');
    const blocks = Math.floor((made.freeBytes ?? 0) / MiB / 2);
    expect(blocks).toBeGreaterThan(50);
    for (let written = 0; written < blocks; written++) await file.write(block);
    await file.sync();
    await file.close();

    const { code, stderr } = await cli(host, ['store', 'grow', host.image, '400M']);
    // Only create has --sparse.
    expect([code, stderr]).toEqual([EXIT.system, expect.stringMatching(/ENOSPC: .* or make room\n$/)]);
    expect(await cliJson(host, ['store', 'status'])).toMatchObject({ sizeBytes: 300 * MiB });
    expect(await cliJson(host, ['clone', 'vm-1', 'debian', '--writable'])).toMatchObject({
      strategy: 'reflink',
    });
  });
});

async function fillUp(folder: string): Promise<void> {
  const file = await open(join(folder, 'filler'), 'w');
  try {
    for (const size of [MiB, 4096]) {
      const block = Buffer.alloc(size, 'full');
      try {
        for (;;) await file.write(block);
      } catch (error) {
        expect((error as NodeJS.ErrnoException).code).toBe('ENOSPC');
      }
    }
    await file.sync();
  } finally {
    await file.close();
  }
  expect((await statfs(folder)).bavail).toBeLessThan(16);
}

test('templates and clones below the mount of one store', { timeout: 60_000 }, async () => {
  const host = await ext4Host();
  const mount = join(host.root, 'all');
  await create(host, '--sparse', '--mount', mount);
  onTestFinished(() => unmount(mount));
  const folders = { templateDir: join(mount, 'templates'), clonesDir: join(mount, 'clones') };
  expect(await cliJson(folders, ['store', 'status'])).toMatchObject({ image: host.image, slots: 0 });
  await cliJson(folders, ['publish', 'debian', join(host.templateDir, 'debian/rootfs.ext4')]);
  await cliJson(folders, ['clone', 'vm-1', 'debian', '--writable']);
  for (const args of [['status'], ['status', host.image], ['grow', host.image, '310M']])
    expect(await cliJson(folders, ['store', ...args])).toMatchObject({ mountPoint: mount, slots: 1 });
  const { findings } = JSON.parse((await cli(folders, ['doctor', '--json'])).stdout);
  const warning = { status: 'warn', detail: expect.stringContaining('of it not reserved') };
  expect(findings).toContainEqual(expect.objectContaining({ check: 'store', ...warning }));
});

describe('nothing that is there is touched, and nothing is left of what is refused', () => {
  test.each<[string, string, (host: StoreHost) => Promise<unknown>, string[]]>([
    ['a file that exists', 'STORE_EXISTS 4', (host) => writeFile(host.image, 'mine'), []],
    ['a link to nowhere', 'STORE_EXISTS 4', (host) => symlink(join(host.root, 'x'), host.image), []],
    [
      'a folder with something in it',
      'MOUNT_POINT_NOT_EMPTY 4',
      (host) => mkdir(join(host.clonesDir, 'vm-1'), { recursive: true }),
      [],
    ],
    ['a file as the folder', 'MOUNT_POINT_REFUSED 4', (host) => writeFile(host.clonesDir, ''), []],
    [
      'a folder that has a mount',
      'MOUNT_POINT_IN_USE 4',
      async (host) => {
        await mkdir(host.clonesDir);
        execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', host.clonesDir]);
      },
      [],
    ],
    ['too small a size', 'INVALID_ARGUMENT 2', async () => {}, ['--size', '200M']],
    ['more than its disk has', 'ENOSPC 5', async () => {}, ['--size', '10G']],
    ['a missing folder for the image', 'ENOENT 3', async () => {}, ['--mount', '/x', 'no/such/image']],
  ])('%s', async (_what, error, prepare, args) => {
    const host = await ext4Host();
    await prepare(host);
    const before = await walk(host.root);
    const [size, mount, image = host.image] =
      args[0] === '--mount' ? ['--size=300M', '--mount=/x', args[2]] : [];
    const wanted = size === undefined ? [image, ...sized(args)] : [image, size, mount as string];
    expect(await cliError(host, ['store', 'create', ...wanted], { cwd: host.root })).toBe(error);
    expect(await walk(host.root)).toEqual(before);
    if (error.startsWith('STORE_EXISTS') && (await exists(join(host.root, 'x'))) === false)
      expect(isMounted(host.clonesDir)).toBe(false);
  });

  test('a folder that the image itself lies in, or is to lie in', async () => {
    const host = await ext4Host();
    const alias = join(host.root, 'alias');
    await mkdir(host.clonesDir);
    await symlink(host.clonesDir, alias);
    for (const folder of [host.clonesDir, alias]) {
      const args = ['store', 'create', join(folder, 'store.img'), '--size', '300M'];
      expect(await cliError(host, args)).toBe('MOUNT_POINT_REFUSED 4');
      expect(await walk(host.clonesDir)).toEqual([]);
    }
    await create(host, '--sparse');
    unmount(host.clonesDir);
    expect(await cliError(host, ['store', 'mount', host.image, '--mount', host.root])).toBe(
      'MOUNT_POINT_REFUSED 4',
    );
  });

  test('no store is removed that is none, forced or not', async () => {
    const host = await ext4Host();
    await writeFile(host.image, 'my thesis');
    for (const force of [[], ['--force']]) {
      expect(await cliError(host, ['store', 'rm', host.image, ...force])).toBe('STORE_INVALID 4');
    }
    expect(await cliError(host, ['store', 'rm', '/nonexistent'])).toBe('STORE_NOT_FOUND 3');
    expect(await cliError(host, ['store', 'rm', host.root])).toBe('STORE_INVALID 4');
    expect(await readFile(host.image, 'utf8')).toBe('my thesis');
  });

  test('without root', async () => {
    const host = await ext4Host();
    await chmod(host.root, 0o777);
    const under = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'];
    expect(await cliError(host, ['store', 'create', host.image, '--size', '300M'], { under })).toBe(
      'EPERM 5',
    );
    expect(await exists(host.image)).toBe(false);
  });
});

describe('a step that fails takes back those before it', () => {
  test.each([
    ['mkfs.xfs', 'echo no luck >&2; exit 1', 'STORE_FAILED 1'],
    ['mkfs.xfs', 'echo "write failed: No space left on device" >&2; exit 1', 'ENOSPC 5'],
    ['mount', 'echo no luck >&2; exit 32', 'STORE_FAILED 1'],
    ['fallocate', 'echo no luck >&2; exit 1', 'STORE_FAILED 1'],
  ])('%s: %s', async (program, script, error) => {
    const host = await ext4Host();
    const PATH = await withProgram(host, program, script);
    const args = ['store', 'create', host.image, '--size', '300M', '--mount', join(host.root, 'a/b')];
    const before = await walk(host.root);
    expect(await cliError(host, args, { env: { PATH } })).toBe(error);
    expect(await walk(host.root)).toEqual(before);
  });

  test('a file system without reflinks', async () => {
    const host = await ext4Host();
    const script = `for last; do :; done; exec ${pathOf('mkfs.xfs')} -q -K -m reflink=0 "$last"`;
    const PATH = await withProgram(host, 'mkfs.xfs', script);
    const before = await walk(host.root);
    const args = ['store', 'create', host.image, '--size', '300M'];
    expect(await cliError(host, args, { env: { PATH } })).toBe('ENOTSUP 5');
    expect(await walk(host.root)).toEqual(before);
  });

  test('Ctrl-C', async () => {
    const host = await ext4Host();
    const started = join(host.root, 'started');
    const PATH = await withProgram(host, 'mkfs.xfs', `echo started > '${started}'; exec sleep 1000`);
    execFileSync('mkfifo', [started]);
    const before = await walk(host.root);
    const args = ['store', 'create', host.image, '--size', '300M'];
    const child = startCli(host, args, { env: { PATH } });
    const exit = exitOf(child);
    expect(await readFile(started, 'utf8')).toBe('started\n');
    child.kill('SIGINT');
    expect((await exit).signal).toBe('SIGINT');
    expect(await walk(host.root)).toEqual(before);
  });

  test('a /run that locks cannot lie in', async () => {
    const host = await ext4Host();
    const before = await walk(host.root);
    const readOnly = 'mount -t tmpfs -o ro tmpfs /run; exec "$@"';
    const under = ['unshare', '--mount', 'sh', '-c', readOnly, 'sh'];
    const { code, stderr } = await cli(host, ['store', 'create', host.image, '--size', '300M'], { under });
    expect([code, stderr]).toEqual([
      EXIT.system,
      expect.stringMatching(/EROFS: \/run\/microvm-rootfs .*ReadWritePaths=\/run/),
    ]);
    expect(await walk(host.root)).toEqual(before);
  });

  test('a missing program is named before anything is made', async () => {
    const host = await ext4Host();
    const { code, stderr } = await cli(
      host,
      ['store', 'create', host.image, '--size', '300M', '--json'],
      // Where system programs lie is looked at as well, so nothing less than this hides it.
      {
        under: [
          'unshare',
          '--mount',
          'sh',
          '-c',
          'mount --bind /dev/null $(PATH=$PATH:/usr/sbin command -v mkfs.xfs); exec "$@"',
          'sh',
        ],
      },
    );
    expect(code).toBe(1);
    expect(JSON.parse(stderr).error).toMatchObject({
      code: 'PROGRAM_NOT_FOUND',
      message: expect.stringContaining('xfsprogs'),
    });
    expect(await exists(host.image)).toBe(false);
  });
});

test('damage is found', async () => {
  const host = await ext4Host();
  await create(host);
  unmount(host.clonesDir);
  const file = await open(host.image, 'r+');
  // The free space of the first allocation group.
  await file.write(Buffer.alloc(512, 'x'), 0, 512, 512);
  await file.close();
  const { code, stderr } = await cli(host, ['store', 'check', host.image]);
  expect(code).toBe(1);
  expect(stderr).toMatch(/^microvm-rootfs: STORE_DAMAGED: .*xfs_repair -f /s);
});

test('a store that was not reserved is made on request, and doctor warns of it', async () => {
  const host = await ext4Host(500 * MiB);
  const made = await create(host, '--sparse', '--size', '2G');
  expect(made.allocatedBytes).toBeLessThan(200 * MiB);
  const { findings } = await cliJson<{ findings: { check: string; status: string; fix: string }[] }>(host, [
    'doctor',
  ]);
  expect(findings.find(({ check }) => check === 'store')).toMatchObject({
    status: 'warn',
    fix: expect.stringContaining(`fallocate --length ${2048 * MiB} ${host.image}`),
  });
  const grown = await cliJson<StoreStatus>(host, ['store', 'grow', host.image, '3G']);
  expect(grown.allocatedBytes).toBeLessThan(200 * MiB);
});

test('on btrfs the file is one that is written in place', async () => {
  const disk = newWorkspace().disk('btrfs', ['mkfs.btrfs', '-q', '-f'], 800 * MiB);
  const host = Object.assign(await Host.in(disk), { image: join(disk, 'store.img') });
  onTestFinished(() => unmount(host.clonesDir));
  await create(host);
  expect(execFileSync('lsattr', [host.image], { encoding: 'utf8' })).toMatch(/^\S*C\S* /);
});

test('doctor finds a reserved store in order', async () => {
  const host = await ext4Host();
  await create(host);
  const { findings } = await cliJson<{ findings: { check: string; status: string }[] }>(host, ['doctor']);
  expect(findings.find(({ check }) => check === 'store')?.status).toBe('ok');
});

test('a store that cannot be written to is not mounted read-only without a word', async () => {
  const host = await ext4Host();
  await create(host, '--sparse');
  unmount(host.clonesDir);
  execFileSync('chattr', ['+i', host.image]);
  try {
    const { code, stderr } = await cli(host, ['store', 'mount', host.image]);
    expect([code, stderr]).toEqual([
      EXIT.system,
      expect.stringMatching(/EPERM: .*cannot be written to.*chattr -i/),
    ]);
    expect(isMounted(host.clonesDir)).toBe(false);
  } finally {
    execFileSync('chattr', ['-i', host.image]);
  }
});

test('status needs no root', async () => {
  const host = await ext4Host();
  await create(host);
  for (const above of ['.', '../..']) await chmod(join(host.root, above), 0o755);
  const under = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'];
  expect(await cliJson(host, ['store', 'status'], { under })).toMatchObject({ fs: 'xfs', slots: 0 });
});

test('what the system fails is told with what to do', async () => {
  const host = await ext4Host();
  const told = async (args: string[], under: string[] = []) =>
    (await cli(host, ['store', ...args], { under })).stderr;
  const missing = join(host.root, 'no/store.img');
  expect(await told(['create', missing, '--size', '300M'])).toBe(
    `microvm-rootfs: ENOENT: there is no folder ${dirname(missing)}: make it first, or correct the path\n`,
  );
  await writeFile(host.image, '');
  const below = join(host.image, 'store.img');
  expect(await told(['status', below])).toMatch(
    /ENOTDIR: .*; a part of the path is not a folder: correct the path\n$/,
  );
  const withoutProc = ['unshare', '--mount', 'sh', '-c', 'umount --lazy /proc && exec "$@"', 'sh'];
  expect(await told(['status', host.image], withoutProc)).toContain(
    'cannot be read, which tells what is mounted: mount /proc',
  );
});

test('rm --force removes one with clones', async () => {
  const host = await ext4Host();
  await create(host);
  await cliJson(host, ['clone', 'vm-1', 'debian', '--writable']);
  await cliJson(host, ['store', 'rm', host.image, '--force']);
  expect(await exists(host.image)).toBe(false);
});

describe('units', () => {
  test('are what systemd takes', async ({ skip }) => {
    const host = await ext4Host();
    await create(host);
    const { units } = await cliJson<{ units: { name: string; text: string }[] }>(host, [
      'store',
      'unit',
      host.image,
    ]);
    const [mount, check] = units;
    expect(mount?.name).toBe(`${escapePath(host.clonesDir)}.mount`);
    expect(mount?.text).toContain(
      `What=${host.image}\nWhere=${host.clonesDir}\nType=xfs\nOptions=loop,nodiscard\n`,
    );
    expect(mount?.text).toContain(`Requires=${check?.name}\nAfter=${check?.name}\n`);
    expect(check?.text).toMatch(/^ExecStart=.*main\.js store check .*store\.img$/m);
    const human = await cli(host, ['store', 'unit', host.image]);
    expect(human.stdout).toContain(`# ${check?.name}\n`);

    const folder = join(host.root, 'units');
    const install = ['store', 'unit', host.image, '--install', '--unit-dir', folder];
    const { installed } = await cliJson<{ installed: string[] }>(host, install);
    expect(await readFile(installed[0] ?? '', 'utf8')).toBe(mount?.text);
    expect(await cliError(host, install)).toBe('UNIT_EXISTS 4');
    // Both or neither.
    await unlink(installed[0] ?? '');
    expect(await cliError(host, install)).toBe('UNIT_EXISTS 4');
    expect(await exists(installed[0] ?? '')).toBe(false);
    await rm(folder, { recursive: true });

    await cliJson(host, install);
    try {
      execFileSync('systemd-analyze', ['--version'], { stdio: 'pipe' });
    } catch {
      skip('needs systemd-analyze (package systemd)');
    }
    const said = execFileSync('sh', ['-c', 'systemd-analyze verify "$@" 2>&1 || true', 'sh', ...installed], {
      encoding: 'utf8',
    });
    expect(said.split('\n').filter((line) => line.includes('units/'))).toEqual([]);
  });

  test('are for the folder that the store is mounted on, unless another is named', async () => {
    const host = await ext4Host();
    const folder = join(host.root, 'elsewhere');
    onTestFinished(() => unmount(folder));
    await create(host, '--sparse', '--mount', folder);
    const unit = async (...args: string[]) =>
      (await cliJson<{ units: { name: string }[] }>(host, ['store', 'unit', host.image, ...args])).units[0]
        ?.name;
    expect(await unit()).toBe(`${escapePath(folder)}.mount`);
    expect(await unit('--mount', host.clonesDir)).toBe(`${escapePath(host.clonesDir)}.mount`);
    unmount(folder);
    expect(await unit()).toBe(`${escapePath(host.clonesDir)}.mount`);
  });

  test.each([
    ['/var/lib/microvm/rootfs', 'var-lib-microvm-rootfs'],
    ['/', '-'],
    ['//srv//vms/', 'srv-vms'],
    ['/srv/a-b', 'srv-a\\x2db'],
    ['/srv/ä b', 'srv-\\xc3\\xa4\\x20b'],
    ['/.hidden/.x', '\\x2ehidden-.x'],
  ])('%s is %s', (path, escaped) => {
    expect(escapePath(path)).toBe(escaped);
  });
});
