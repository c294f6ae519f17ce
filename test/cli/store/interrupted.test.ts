// Mounting that is interrupted: nothing stays mounted whose image is gone, and nothing is called damaged.
import { execFileSync } from 'node:child_process';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { exitOf } from '../../fixtures/child.js';
import { exists, walk } from '../../fixtures/files.js';
import { MiB } from '../../fixtures/images.js';
import { cliError, cliJson, startCli } from '../run-cli.js';
import {
  create,
  ext4Host,
  isMounted,
  lockIsWaitedFor,
  needStores,
  pathOf,
  type StoreHost,
  unmount,
  withProgram,
  withStop,
} from './store-host.js';

needStores();

/** An environment in which mount(8) mounts, and then does this. */
async function afterMounting(host: StoreHost, script: string): Promise<Record<string, string>> {
  const temporary = join(host.root, 'tmp');
  await mkdir(temporary);
  const PATH = await withProgram(host, 'mount', `${pathOf('mount')} "$@"; status=$?\n${script}`);
  return { PATH, TMPDIR: temporary };
}

/** Ctrl-C, which reaches all programs of the command, when the store is mounted and mount(8) has not ended. */
async function interruptedWhenMounted(host: StoreHost, args: readonly string[]): Promise<string | null> {
  const fifo = join(host.root, 'mounted');
  execFileSync('mkfifo', [fifo]);
  const env = await afterMounting(host, `echo mounted > '${fifo}'; sleep 0.5; exit $status`);
  const child = startCli(host, ['store', ...args], { env, under: ['setsid'] });
  const exit = exitOf(child);
  expect(await readFile(fifo, 'utf8')).toBe('mounted\n');
  process.kill(-(child.pid as number), 'SIGINT');
  const { signal } = await exit;
  expect(await readdir(join(host.root, 'tmp'))).toEqual([]);
  return signal;
}

describe('Ctrl-C between mount(2) and the end of mount(8)', () => {
  test('of create: neither mount nor image', async () => {
    const host = await ext4Host();
    expect(await interruptedWhenMounted(host, ['create', host.image, '--size', '300M', '--sparse'])).toBe(
      'SIGINT',
    );
    expect(isMounted(host.clonesDir)).toBe(false);
    expect([await exists(host.image), await exists(host.clonesDir)]).toEqual([false, false]);
  });

  test.each([['mount'], ['check']])('of %s: no mount', async (command) => {
    const host = await ext4Host();
    await create(host, '--sparse');
    unmount(host.clonesDir);
    expect(await interruptedWhenMounted(host, [command, host.image])).toBe('SIGINT');
    expect(isMounted(host.clonesDir)).toBe(false);
    expect(await cliJson(host, ['store', 'check', host.image])).toMatchObject({ clean: true });
  });
});

test.each([
  ['was killed', 'kill -KILL $$'],
  ['failed', 'echo no luck >&2; exit 1'],
])('a mount(8) that mounted and then %s is taken back', async (_what, script) => {
  const host = await ext4Host();
  const env = await afterMounting(host, script);
  const before = await walk(host.root);
  const args = ['store', 'create', host.image, '--size', '300M', '--sparse'];
  expect(await cliError(host, args, { env })).toBe('STORE_FAILED 1');
  expect(isMounted(host.clonesDir)).toBe(false);
  expect(await walk(host.root)).toEqual(before);

  await create(host, '--sparse');
  unmount(host.clonesDir);
  expect(await cliError(host, ['store', 'mount', host.image], { env })).toBe('STORE_FAILED 1');
  expect(isMounted(host.clonesDir)).toBe(false);
  expect(await cliError(host, ['store', 'check', host.image], { env })).toBe('STORE_FAILED 1');
  expect(await readdir(join(host.root, 'tmp'))).toEqual([]);
});

describe('a create that is killed before its file system is there', () => {
  const args = (host: StoreHost) => ['store', 'create', host.image, '--size', '300M'];

  async function killed(host: StoreHost): Promise<void> {
    const { PATH, started } = await withStop(host, 'mkfs.xfs');
    const child = startCli(host, args(host), { env: { PATH } });
    const exit = exitOf(child);
    const program = Number(await started);
    child.kill('SIGKILL');
    await exit;
    process.kill(program, 'SIGKILL');
    expect((await readdir(host.root)).filter((name) => name.includes('store.img'))).toEqual([
      '.store.img.unfinished',
    ]);
  }

  test('is made again', async () => {
    const host = await ext4Host(500 * MiB);
    await killed(host);
    // On a disk that has no room for two.
    expect(await cliJson(host, args(host))).toMatchObject({ image: host.image });
    expect((await readdir(host.root)).filter((name) => name.includes('store.img'))).toEqual(['store.img']);
  });

  test('is removed', async () => {
    const host = await ext4Host(500 * MiB);
    await killed(host);
    expect(await cliJson(host, ['store', 'rm', host.image])).toEqual({ removed: host.image });
    expect((await readdir(host.root)).filter((name) => name.includes('store.img'))).toEqual([]);
    expect(await cliError(host, ['store', 'rm', host.image])).toBe('STORE_NOT_FOUND 3');
  });
});

test('a create waits for another of that image, and leaves its store alone', async () => {
  const host = await ext4Host();
  const args = ['store', 'create', host.image, '--size', '300M', '--sparse'];
  const { PATH, started, goOn } = await withStop(host, 'mkfs.xfs');
  const first = exitOf(startCli(host, args, { env: { PATH } }));
  await started;
  const second = cliError(host, args);
  const waiting = lockIsWaitedFor(join(host.root, '.store.img.unfinished'));
  expect(await Promise.race([waiting, second])).toBe('waited for');
  await goOn();
  expect((await first).code).toBe(0);
  expect(await second).toBe('STORE_EXISTS 4');
  expect(await cliJson(host, ['store', 'status'])).toMatchObject({ image: host.image });
});

test.each(['.microvm-rootfs-probe', '.microvm-rootfs-probe-reflink'])(
  'a link named %s in the new file system is not written through',
  async (name) => {
    const host = await ext4Host();
    const file = join(host.root, 'file');
    await writeFile(file, 'mine');
    const script = `for last; do :; done; ln -s '${file}' "$last/${name}"; exit $status`;
    const env = await afterMounting(host, script);
    const args = ['store', 'create', host.image, '--size', '300M', '--sparse'];
    expect(await cliError(host, args, { env })).toMatch(/^EEXIST /);
    expect(await readFile(file, 'utf8')).toBe('mine');
  },
);
