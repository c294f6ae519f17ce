// On a terminal: progress for what takes long, and Ctrl-C.
import { execFileSync } from 'node:child_process';
import { mkdir, readdir, readlink, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test, vi } from 'vitest';
import { cutTo, ProgressLine, progressText } from '../../src/cli/progress.js';
import { exitOf } from '../fixtures/child.js';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { writeSparse } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { GiB, MiB } from '../fixtures/images.js';
import { script } from '../programs/script.js';
import { cli, startCli, startOnTerminal } from './run-cli.js';

// Nobody hashes it to its end.
const ENDLESS_BYTES = 4096 * GiB;

test('a long hash shows a bar, and Ctrl-C takes it away and ends it', async ({ skip }) => {
  const { path, missing } = filesystemNamed('XFS');
  if (missing) skip(missing);
  const host = await Host.in(path);
  const file = `${host.root}/memory`;
  await writeSparse(file, ENDLESS_BYTES);
  const child = startOnTerminal(host, ['hash', 'memory'], host.root);
  const exit = exitOf(child);
  let seen = '';
  child.stdout?.on('data', (text: string) => {
    const before = seen.includes('%');
    seen += text;
    // The terminal makes a SIGINT of it.
    if (!before && seen.includes('%')) child.stdin?.write('\u0003');
  });
  const { code, stdout } = await exit;
  expect(stdout).toContain('hashing memory  [');
  expect(stdout).toMatch(/ % {2}.* of 4 TiB/);
  expect(code).toBe(130);
  // The line was taken away before the error was told.
  expect(stdout).toContain('\r\u001b[Kmicrovm-rootfs: ABORT_ERR');
  expect(stdout).toMatch(/microvm-rootfs: ABORT_ERR: hashing memory was aborted\r\n$/);
});

test('nothing of it is written where there is no terminal', async () => {
  const host = await Host.in();
  const file = `${host.root}/memory`;
  await writeSparse(file, GiB);
  const { stdout, stderr } = await cli(host, ['hash', file]);
  expect(stderr).toBe('');
  expect(stdout).toMatch(/^[0-9a-f]{64} {2}/);
});

test('a bar says how far, how much and how long', () => {
  expect(progressText('hashing a', { bytesDone: MiB, bytesTotal: 4 * MiB }, 2000)).toBe(
    'hashing a  [######------------------]  25 %  1 MiB of 4 MiB  6 s left',
  );
  expect(progressText('cloning a', undefined, 2900)).toBe('cloning a  2 s');
});

/** What a progress line draws on a terminal of 40 cells. */
function drawn(label: string): string {
  const written: string[] = [];
  const stream = { isTTY: true, columns: 40, write: (text: string) => written.push(text) };
  const line = new ProgressLine(label, true, stream as never);
  vi.advanceTimersByTime(1000);
  line.stop();
  return written.join('');
}

test('a progress line shows names as printable text, no wider than the terminal, and on no dumb one', () => {
  vi.useFakeTimers();
  vi.stubEnv('TERM', 'xterm');
  onTestFinished(() => {
    vi.useRealTimers();
    vi.unstubAllEnvs();
  });
  expect(drawn('hashing a\u001b]0;owned\u0007')).toContain('hashing a\\x1b]0;owned\\x07  ');
  expect(drawn('仮'.repeat(60))).toContain(`\u001b[K${'仮'.repeat(19)}\r`);
  expect(cutTo(3, 'a仮b')).toBe('a仮');
  expect(cutTo(2, 'a仮b')).toBe('a');
  vi.stubEnv('TERM', 'dumb');
  expect(drawn('hashing a')).toBe('');
});

test('a table is the same on a terminal', async () => {
  const host = await Host.in();
  await host.addTemplate('a', 'x');
  const onTerminal = await exitOf(startOnTerminal(host, ['stacks']));
  expect(onTerminal.stdout.replaceAll('\r\n', '\n')).toBe((await cli(host, ['stacks'])).stdout);
});

test.each([['SIGINT'], ['SIGTERM'], ['SIGHUP']] as const)(
  '%s in the middle of a clone ends it, and leaves nothing half-made',
  async (signal) => {
    const host = await Host.in(filesystemNamed('XFS').path);
    await host.placeTemplate('endless', (path) => writeSparse(path, ENDLESS_BYTES));
    const child = startCli(host, ['clone', 'vm-1', 'endless', '--writable']);
    const exit = exitOf(child);
    await opened(child.pid as number, host.template('endless'));
    child.kill(signal);
    const { signal: diedOf, stderr } = await exit;
    expect(diedOf).toBe(signal);
    expect(stderr).toMatch(/^microvm-rootfs: ABORT_ERR: .*\n$/);
    expect(await host.slotNames()).toEqual([]);
    expect(await host.leftovers()).toEqual([]);
  },
);

test.each(['kill -INT $$', 'exit 3'])(
  'Ctrl-C that ends a program first, by %s, ends the command as it does alone',
  async (end) => {
    const host = await Host.in();
    const mke2fs = await script(host, 'mke2fs', `kill -INT $PPID; ${end}`);
    const tree = `${host.root}/tree`;
    await mkdir(tree);
    // Without care, a third of them reports that the program failed.
    for (let i = 0; i < 6; i++) {
      const { signal, stderr } = await cli(host, ['--mke2fs', mke2fs, 'publish', 'a', tree]);
      expect(stderr).toMatch(/^microvm-rootfs: ABORT_ERR: .*\n$/);
      expect(signal).toBe('SIGINT');
    }
  },
);

test('Ctrl-C ends rm-stack while it reads the template, which stays', async () => {
  const host = await Host.in(filesystemNamed('XFS').path);
  await host.placeTemplate('endless', (path) => writeSparse(path, ENDLESS_BYTES));
  const child = startCli(host, ['rm-stack', 'endless']);
  const exit = exitOf(child);
  await opened(child.pid as number, host.template('endless'));
  child.kill('SIGINT');
  const { signal, stderr } = await exit;
  expect(signal).toBe('SIGINT');
  expect(stderr).toMatch(/^microvm-rootfs: ABORT_ERR: .*\n$/);
  expect(await readdir(dirname(host.template('endless')))).toEqual(['rootfs.ext4']);
});

test.each([
  ['gc', '--keep-file', 'FIFO'],
  ['--config', 'FIFO', 'ls'],
])('SIGTERM ends %s %s while it waits for who writes to a pipe', async (...words) => {
  const host = await Host.in();
  const fifo = `${host.root}/fifo`;
  execFileSync('mkfifo', [fifo]);
  const child = startCli(
    host,
    words.map((word) => (word === 'FIFO' ? fifo : word)),
  );
  const exit = exitOf(child);
  await opened(child.pid as number, fifo);
  child.kill('SIGTERM');
  const { signal, stderr } = await exit;
  expect(signal).toBe('SIGTERM');
  expect(stderr).toMatch(/^microvm-rootfs: ABORT_ERR: reading .*fifo.*\n$/);
});

test('a list comes through a pipe with a name, however late', async () => {
  const host = await Host.in();
  await host.addTemplate('a', 'x');
  for (const vmId of ['vm-1', 'vm-2']) await host.registry.cloneForVm(vmId, 'a', { writable: true });
  const fifo = `${host.root}/fifo`;
  execFileSync('mkfifo', [fifo]);
  const child = startCli(host, ['gc', '--keep-file', fifo, '--json']);
  const exit = exitOf(child);
  await opened(child.pid as number, fifo);
  await sleep(100);
  await writeFile(fifo, 'vm-1\n');
  expect(JSON.parse((await exit).stdout)).toMatchObject({ released: ['vm-2'] });
});

/** When a process has a file open. */
async function opened(pid: number, path: string): Promise<void> {
  for (;;) {
    const fds = await readdir(`/proc/${pid}/fd`);
    const targets = await Promise.all(fds.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')));
    if (targets.includes(path)) return;
    await sleep(5);
  }
}
