// A store that others work with at the same moment, under this name or another.
import { execFileSync, spawn } from 'node:child_process';
import { link, mkdir, open, readdir, readFile, rename, stat, symlink, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { exitOf, printed } from '../../fixtures/child.js';
import { exists } from '../../fixtures/files.js';
import { MiB } from '../../fixtures/images.js';
import { cliError, cliJson, startCli } from '../run-cli.js';
import {
  create,
  ext4Host,
  isMounted,
  lockIsWaitedFor,
  lockOf,
  needStores,
  pathOf,
  type StoreHost,
  unmount,
  withProgram,
  withStop,
} from './store-host.js';

needStores();

const FULL_DISK = 'echo "fallocate: fallocate failed: No space left on device" >&2; exit 1';

test('a grow that fails takes nothing from one that waited for it', { timeout: 60_000 }, async () => {
  const host = await ext4Host();
  await create(host);
  const started = join(host.root, 'started');
  execFileSync('mkfifo', [started]);
  const PATH = await withProgram(host, 'fallocate', `echo started > '${started}'; sleep 1; ${FULL_DISK}`);
  const failing = exitOf(startCli(host, ['store', 'grow', host.image, '600M'], { env: { PATH } }));
  expect(await readFile(started, 'utf8')).toBe('started\n');
  const grown = cliJson(host, ['store', 'grow', host.image, '400M']);
  expect((await failing).code).toBe(5);
  expect(await grown).toMatchObject({ sizeBytes: 400 * MiB });
  expect((await stat(host.image)).size).toBe(400 * MiB);
});

test('a grow that fails leaves what the file system was given by hand meanwhile', async () => {
  const host = await ext4Host();
  const { device } = await create(host);
  const byHand = `truncate --size 400M '${host.image}'; losetup --set-capacity ${device}`;
  const PATH = await withProgram(host, 'fallocate', `${byHand}; ${FULL_DISK}`);
  expect(await cliError(host, ['store', 'grow', host.image, '500M'], { env: { PATH } })).toBe('ENOSPC 5');
  expect((await stat(host.image)).size).toBe(400 * MiB);
});

test('a grow that fails takes back what it had reserved itself', async () => {
  const host = await ext4Host();
  await create(host);
  const PATH = await withProgram(host, 'fallocate', `truncate --size 350M '${host.image}'; ${FULL_DISK}`);
  expect(await cliError(host, ['store', 'grow', host.image, '400M'], { env: { PATH } })).toBe('ENOSPC 5');
  expect((await stat(host.image)).size).toBe(300 * MiB);
});

test('a mounted store is known by its other names', { timeout: 60_000 }, async () => {
  const host = await ext4Host();
  await create(host, '--sparse');
  await cliJson(host, ['clone', 'vm-1', 'debian', '--writable']);
  const [bound, linked] = [join(host.root, 'bound'), join(host.root, 'linked.img')];
  await mkdir(bound);
  execFileSync('mount', ['--bind', host.root, bound]);
  onTestFinished(() => unmount(bound));
  const inUse = await open(host.slot('vm-1').image, 'r+');
  for (const image of [join(bound, 'store.img'), linked]) {
    if (image === linked) await link(host.image, linked);
    expect(await cliJson(host, ['store', 'status', image])).toMatchObject({ mountPoint: host.clonesDir });
    for (const command of [['check'], ['mount', '--mount', join(host.root, 'm')], ['rm', '--force']]) {
      expect(await cliError(host, ['store', ...command, image])).toBe('STORE_IN_USE 4');
    }
  }
  await inUse.close();
  expect(await exists(host.image)).toBe(true);
  expect(await cliJson(host, ['store', 'grow', linked, '400M'])).toMatchObject({ slots: 1 });
});

test('of several creates on one folder, one makes its store and the others nothing', async () => {
  const host = await ext4Host();
  const images = [1, 2, 3].map((number) => join(host.root, `${number}.img`));
  const exits = await Promise.all(
    images.map((image) =>
      exitOf(startCli(host, ['store', 'create', image, '--size', '300M', '--sparse', '--json'])),
    ),
  );
  expect(exits.map(({ code }) => code).sort()).toEqual([0, 4, 4]);
  for (const { code, stderr } of exits)
    if (code === 4) expect(JSON.parse(stderr).error.code).toBe('MOUNT_POINT_IN_USE');
  const there = await Promise.all(images.map(exists));
  expect(there.map((isThere) => (isThere ? 0 : 4))).toEqual(exits.map(({ code }) => code));
  unmount(host.clonesDir);
  expect(isMounted(host.clonesDir)).toBe(false);
});

test('rm leaves a store that is mounted twice as it is', async () => {
  const host = await ext4Host();
  await create(host, '--sparse');
  const second = join(host.root, 'second');
  await mkdir(second);
  execFileSync('mount', ['--bind', host.clonesDir, second]);
  onTestFinished(() => unmount(second));
  for (const force of [[], ['--force']])
    expect(await cliError(host, ['store', 'rm', host.image, ...force])).toBe('STORE_IN_USE 4');
  expect([isMounted(host.clonesDir), isMounted(second)]).toEqual([true, true]);
  unmount(second);
  expect(await cliJson(host, ['store', 'rm', host.image])).toEqual({ removed: host.image });
});

test('rm waits for what looks at the loop device, as udev does, or mounts the store again', async () => {
  const host = await ext4Host();
  const { device } = await create(host, '--sparse');
  const looksFor = async (seconds: number) => {
    const looking = spawn('sh', ['-c', `exec <${device}; echo looking; exec sleep ${seconds}`]);
    onTestFinished(() => void looking.kill());
    await printed(looking, 'looking');
    return looking;
  };
  const looking = await looksFor(60);
  expect(await cliError(host, ['store', 'rm', host.image])).toBe('STORE_IN_USE 4');
  expect(await cliJson(host, ['store', 'status'])).toMatchObject({ image: host.image });
  looking.kill();
  await looksFor(0.7);
  expect(await cliJson(host, ['store', 'rm', host.image])).toEqual({ removed: host.image });
});

test('a store is mounted when its check has ended, not beside it', { timeout: 60_000 }, async () => {
  const host = await ext4Host();
  await create(host, '--sparse');
  unmount(host.clonesDir);
  const { PATH, started, goOn } = await withStop(host, 'mount');
  const checked = cliJson(host, ['store', 'check', host.image], { env: { PATH } });
  await started;
  const mounted = cliJson(host, ['store', 'mount', host.image]);
  expect(await Promise.race([lockIsWaitedFor(host.image), mounted])).toBe('waited for');
  await goOn();
  expect(await checked).toMatchObject({ clean: true });
  expect(await mounted).toMatchObject({ mountPoint: host.clonesDir });
});

/** A host with a store, not mounted, and another beside it. */
async function hostOfTwo(): Promise<{ host: StoreHost; other: string; exchange: string }> {
  const host = await ext4Host();
  const other = join(host.root, 'other.img');
  await create(host, '--sparse');
  unmount(host.clonesDir);
  await cliJson(host, ['store', 'create', other, '--size', '350M', '--sparse']);
  unmount(host.clonesDir);
  return { host, other, exchange: `mv '${host.image}' '${host.image}.old'; mv '${other}' '${host.image}'` };
}

/** Programs of the host that hold a lock until their input ends. */
async function holdLock(...args: string[]): Promise<() => Promise<unknown>> {
  const holder = spawn('flock', [...args, 'sh', '-c', 'echo locked; exec cat']);
  onTestFinished(() => void holder.kill());
  await printed(holder, 'locked');
  const exit = exitOf(holder);
  return () => {
    holder.stdin.end();
    return exit;
  };
}

test.each([
  ['rm', '--force'],
  ['grow', '400M'],
])('%s leaves a store alone that was given the name while it waited', async (command, arg) => {
  const { host, other } = await hostOfTwo();
  const letGo = await holdLock(await lockOf(host.image));
  const result = cliError(host, ['store', command, host.image, arg]);
  await lockIsWaitedFor(host.image);
  await rename(host.image, `${host.image}.old`);
  await rename(other, host.image);
  await letGo();
  expect(await result).toBe('STORE_NOT_FOUND 3');
  expect((await stat(host.image)).size).toBe(350 * MiB);
  expect((await stat(`${host.image}.old`)).size).toBe(300 * MiB);
});

test('rm leaves a store alone that was given the name at the last moment', async () => {
  const { host, exchange } = await hostOfTwo();
  await cliJson(host, ['store', 'mount', host.image]);
  const PATH = await withProgram(host, 'umount', `${exchange}; exec ${pathOf('umount')} "$@"`);
  const remove = ['store', 'rm', '--force', host.image];
  expect(await cliError(host, remove, { env: { PATH } })).toBe('STORE_NOT_FOUND 3');
  expect((await stat(host.image)).size).toBe(350 * MiB);
  expect((await stat(`${host.image}.old`)).size).toBe(300 * MiB);
  expect(isMounted(host.clonesDir)).toBe(false);
});

test('whoever has locked the folder or the image, as any user can that may read it, holds nobody up', async () => {
  const host = await ext4Host();
  await mkdir(host.clonesDir);
  await holdLock('--shared', host.clonesDir);
  await create(host, '--sparse');
  unmount(host.clonesDir);
  await holdLock('--shared', host.image);
  expect(await cliJson(host, ['store', 'check', host.image])).toMatchObject({ clean: true });
});

test('nobody but root can walk into a store that is looked into', async () => {
  const host = await ext4Host();
  await create(host, '--sparse');
  unmount(host.clonesDir);
  const [seen, asStranger] = [join(host.root, 'seen'), 'setpriv --reuid 65534 --regid 65534 --clear-groups'];
  const script = [
    `${asStranger} ls "$1" >'${seen}' 2>/dev/null && echo entered >>'${seen}'`,
    `grep " $1 " /proc/self/mounts >>'${seen}'`,
    `exec ${pathOf('umount')} "$@"`,
  ];
  const env = { PATH: await withProgram(host, 'umount', script.join('\n')), TMPDIR: '/tmp' };
  expect(await cliJson(host, ['store', 'check', host.image], { env })).toMatchObject({ clean: true });
  expect(await readFile(seen, 'utf8')).toMatch(/^\S+ \/tmp\/\S+ xfs \w+,nosuid,nodev,noexec,/);
});

test('what a process of root keeps open of a store that is looked into stops no later command', async () => {
  const host = await ext4Host();
  await create(host, '--sparse');
  unmount(host.clonesDir);
  const [temporary, pid] = [join(host.root, 'tmp'), join(host.root, 'pid')];
  await mkdir(temporary);
  const keepOpen = `sh -c 'exec <"$0"; echo $$ >${pid}; exec sleep 60' "$1" >/dev/null 2>&1 &`;
  const script = `[ -e ${pid} ] || { mkfifo ${pid}; ${keepOpen} read -r word <${pid}; echo $word >${pid}.text; }`;
  const PATH = await withProgram(host, 'umount', `${script}\nexec ${pathOf('umount')} "$@"`);
  const env = { PATH, TMPDIR: temporary };
  expect(await cliError(host, ['store', 'check', host.image], { env })).toBe('STORE_IN_USE 4');
  expect(await readdir(temporary)).toEqual([]);
  process.kill(Number(await readFile(`${pid}.text`, 'utf8')));
  expect(await cliJson(host, ['store', 'rm', host.image])).toEqual({ removed: host.image });
});

test('rm removes a store that is named by a symbolic link, and leaves one that has a second hard link', async () => {
  const host = await ext4Host();
  await create(host, '--sparse');
  await cliJson(host, ['clone', 'vm-1', 'debian', '--writable']);
  const [linked, second] = [join(host.root, 'linked.img'), join(host.root, 'second.img')];
  await symlink(host.image, linked);
  await link(host.image, second);
  const remove = ['store', 'rm', '--force', linked];
  expect(await cliError(host, remove)).toBe('STORE_IN_USE 4');
  expect([await exists(host.image), isMounted(host.clonesDir)]).toEqual([true, true]);
  await unlink(second);
  expect(await cliJson(host, remove)).toEqual({ removed: host.image });
  expect([await exists(host.image), isMounted(host.clonesDir)]).toEqual([false, false]);
  expect(await cliError(host, remove)).toBe('STORE_NOT_FOUND 3');
});
