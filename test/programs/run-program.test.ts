import { execFileSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { run } from '../../src/programs/run-program.js';
import { exists } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { rejection } from '../fixtures/rejection.js';
import { script } from './script.js';

test('status, signal and both outputs come back', async () => {
  const host = await Host.in();
  expect(await run(await script(host, 'a', 'echo out; echo err >&2; exit 7'), [], undefined)).toEqual({
    status: 7,
    signal: null,
    stdout: 'out\n',
    stderr: 'err\n',
  });
  expect(await run(await script(host, 'b', 'kill -TERM $$'), [], undefined)).toMatchObject({
    status: null,
    signal: 'SIGTERM',
  });
});

test('of a flood of output the last words are kept', async () => {
  const host = await Host.in();
  const flood = await script(host, 'flood', 'yes line | head -n 100000 >&2; echo the end >&2');
  const { stderr } = await run(flood, [], undefined);
  expect(stderr.length).toBeLessThanOrEqual(16 * 1024);
  expect(stderr.endsWith('the end\n')).toBe(true);
});

test('programs speak English whatever the locale', async () => {
  const host = await Host.in();
  vi.stubEnv('LC_ALL', 'de_DE.UTF-8');
  expect(await run(await script(host, 'locale', 'echo $LC_ALL'), [], undefined)).toMatchObject({
    stdout: 'C\n',
  });
  vi.unstubAllEnvs();
});

test('an abort kills the program', async () => {
  const host = await Host.in();
  const controller = new AbortController();
  const running = run(await script(host, 'slow', 'exec sleep 60'), [], controller.signal);
  setTimeout(() => controller.abort(), 50);
  const started = Date.now();
  await rejection(running, 'ABORT_ERR');
  expect(Date.now() - started).toBeLessThan(10_000);
});

test('of one program as many run at once as there are processors; another program does not wait for them', async () => {
  const host = await Host.in();
  const log = join(host.root, 'log');
  const slow = await script(host, 'slow', `echo + >> ${log}; sleep 0.1; echo - >> ${log}`);
  const ended: string[] = [];
  const jobs = Array.from({ length: 12 }, () => run(slow, [], undefined).then(() => ended.push('slow')));
  await run(await script(host, 'quick', ''), [], undefined);
  ended.push('quick');
  await Promise.all(jobs);
  expect(ended.indexOf('quick')).toBeLessThan(11);
  let running = 0;
  const counts = (await readFile(log, 'utf8'))
    .trim()
    .split('\n')
    .map((line) => (running += line === '+' ? 1 : -1));
  expect(counts).toHaveLength(24);
  expect(Math.max(...counts)).toBeLessThanOrEqual(Math.max(2, availableParallelism()));
});

test('a program that runs for long lets others of its name start', async () => {
  const host = await Host.in();
  const controller = new AbortController();
  const { signal } = controller;
  const slow = await script(host, 'slow', 'exec sleep 60');
  const jobs = Array.from({ length: Math.max(2, availableParallelism()) }, () =>
    run(slow, [], signal, { turnMs: 100 }),
  );
  expect(await run(await script(host, 'sub/slow', ''), [], undefined)).toMatchObject({ status: 0 });
  controller.abort();
  await Promise.allSettled(jobs);
}, 20_000);

test('an abort reaches a program that waits for its turn, which then never starts', async () => {
  const host = await Host.in();
  const slow = await script(host, 'slow', 'sleep 0.2');
  const mark = join(host.root, 'mark');
  const jobs = Array.from({ length: Math.max(2, availableParallelism()) }, () => run(slow, [], undefined));
  const controller = new AbortController();
  const waiting = run(await script(host, 'sub/slow', `touch ${mark}`), [], controller.signal);
  controller.abort();
  await rejection(waiting, 'ABORT_ERR');
  await Promise.all(jobs);
  expect(await exists(mark)).toBe(false);
});

test('a program that ends before it has read its input is no failure of this process', async () => {
  const host = await Host.in();
  const program = await script(host, 'deaf', 'exec <&-; echo done');
  for (let round = 0; round < 5; round++) {
    const feed = async (stdin: NodeJS.WritableStream) => void stdin.end('x'.repeat(1 << 20));
    expect(await run(program, [], undefined, { feed })).toMatchObject({ status: 0, stdout: 'done\n' });
  }
});

test('a program that cannot start, for want of descriptors, is an error of its call', async () => {
  const script = `
    const { closeSync, openSync } = require('node:fs');
    const { run } = require('./dist/programs/run-program.js');
    const open = [];
    try { for (;;) open.push(openSync('/dev/null', 'r')); } catch {}
    closeSync(open.pop());
    run('/bin/true', [], undefined).then(() => console.log('ran'), ({ code }) => console.log(code));`;
  const limited = ['-c', 'ulimit -n 100; exec "$0" -e "$1"', process.execPath, script];
  expect(execFileSync('sh', limited, { encoding: 'utf8' })).toBe('EMFILE\n');
});

test('an abort does not wait for what the program has started', async () => {
  const host = await Host.in();
  const mark = join(host.root, 'mark');
  const controller = new AbortController();
  const parent = await script(host, 'parent', `sleep 30 & echo $! > ${mark}; wait`);
  const running = rejection(run(parent, [], controller.signal), 'ABORT_ERR');
  await expect.poll(() => exists(mark)).toBe(true);
  controller.abort();
  const started = Date.now();
  await running;
  expect(Date.now() - started).toBeLessThan(10_000);
  process.kill(Number(await readFile(mark, 'utf8')));
});

test('what a drain leaves unread does not keep the program from its end', async () => {
  const host = await Host.in();
  const flood = await script(host, 'flood', 'yes | head -c 1000000');
  const drain = async (stdout: NodeJS.ReadableStream) => {
    await new Promise((resolve) => stdout.once('readable', resolve));
  };
  expect(await run(flood, [], undefined, { drain })).toMatchObject({ status: 0 });
});

test('a program starts in the folder and with the umask that it was given', async () => {
  const host = await Host.in();
  const where = await script(host, 'where', 'pwd; umask; echo "$1"');
  const old = process.umask(0o77);
  const options = { cwd: host.root, usualUmask: true };
  const exit = await run(where, ['a "b" $c'], undefined, options).finally(() => process.umask(old));
  expect(exit.stdout).toBe(`${host.root}\n0022\na "b" $c\n`);
});
