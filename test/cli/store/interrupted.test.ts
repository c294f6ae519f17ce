// Mounting that is interrupted: nothing stays mounted whose image is gone, and nothing is called damaged.
import { execFileSync } from 'node:child_process';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { exitOf } from '../../fixtures/child.js';
import { exists, walk } from '../../fixtures/files.js';
import { lacks, lacksRoot } from '../../fixtures/tools.js';
import { cliError, cliJson, startCli } from '../run-cli.js';
import { create, ext4Host, isMounted, type StoreHost, unmount, withProgram } from './store-host.js';

beforeEach(({ skip }) => {
  const missing = lacksRoot() ?? lacks('mkfs.xfs', 'mke2fs');
  if (missing) skip(missing);
});

const real = (program: string) =>
  execFileSync('sh', ['-c', `command -v ${program}`], { encoding: 'utf8' }).trim();

/** An environment in which mount(8) mounts, and then does this. */
async function afterMounting(host: StoreHost, script: string): Promise<Record<string, string>> {
  const temporary = join(host.root, 'tmp');
  await mkdir(temporary);
  const PATH = await withProgram(host, 'mount', `${real('mount')} "$@"; status=$?\n${script}`);
  return { PATH, TMPDIR: temporary };
}

/** Ctrl-C, which reaches all programs of the command, when the store is mounted and mount(8) has not ended. */
async function interruptedWhenMounted(host: StoreHost, args: readonly string[]): Promise<number | null> {
  const fifo = join(host.root, 'mounted');
  execFileSync('mkfifo', [fifo]);
  const env = await afterMounting(host, `echo mounted > '${fifo}'; sleep 0.5; exit $status`);
  const child = startCli(host, ['store', ...args], { env, under: ['setsid'] });
  const exit = exitOf(child);
  expect(await readFile(fifo, 'utf8')).toBe('mounted\n');
  process.kill(-(child.pid as number), 'SIGINT');
  const { code } = await exit;
  expect(await readdir(join(host.root, 'tmp'))).toEqual([]);
  return code;
}

describe('Ctrl-C between mount(2) and the end of mount(8)', () => {
  test('of create: neither mount nor image', async () => {
    const host = await ext4Host();
    expect(await interruptedWhenMounted(host, ['create', host.image, '--size', '300M', '--sparse'])).toBe(
      130,
    );
    expect(isMounted(host.clonesDir)).toBe(false);
    expect([await exists(host.image), await exists(host.clonesDir)]).toEqual([false, false]);
  });

  test.each([['mount'], ['check']])('of %s: no mount', async (command) => {
    const host = await ext4Host();
    await create(host, '--sparse');
    unmount(host.clonesDir);
    expect(await interruptedWhenMounted(host, [command, host.image])).toBe(130);
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
