import { execFileSync } from 'node:child_process';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { findProgram, run } from '../../src/system/programs.js';
import { exists } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { rejection } from '../fixtures/rejection.js';

async function script(host: Host, name: string, body: string): Promise<string> {
  const path = join(host.root, name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, `#!/bin/sh\n${body}\n`);
  await chmod(path, 0o755);
  return path;
}

test('a name is looked up on PATH, in its order, before system folders', async () => {
  const host = await Host.in();
  const path = await script(host, 'sh', '');
  vi.stubEnv('PATH', `/nonexistent::${host.root}:/bin`);
  expect(await findProgram('sh')).toBe(path);
  vi.unstubAllEnvs();
});

test('what is a folder or not executable is passed over', async () => {
  const host = await Host.in();
  await writeFile(join(host.root, 'plain'), '');
  vi.stubEnv('PATH', host.root);
  expect(await findProgram('plain')).toBeUndefined();
  expect(await findProgram(join(host.root, 'plain'))).toBeUndefined();
  expect(await findProgram(join(host.root, 'missing'))).toBeUndefined();
  vi.unstubAllEnvs();
});

test('a folder of the name is passed over, on PATH and behind a path', async () => {
  const host = await Host.in();
  await mkdir(join(host.root, 'first/tool'), { recursive: true });
  const tool = await script(host, 'second/tool', '');
  vi.stubEnv('PATH', `${host.root}/first:${host.root}/second`);
  expect(await findProgram('tool')).toBe(tool);
  expect(await findProgram(join(host.root, 'first/tool'))).toBeUndefined();
  vi.unstubAllEnvs();
});

test('without a PATH the usual folders are looked in', async () => {
  vi.stubEnv('PATH', undefined);
  expect(await findProgram('sh')).toMatch(/^(\/usr)?\/bin\/sh$/);
  vi.unstubAllEnvs();
});

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
    const { run } = require('./dist/system/programs.js');
    const open = [];
    try { for (;;) open.push(openSync('/dev/null', 'r')); } catch {}
    closeSync(open.pop());
    run('/bin/true', [], undefined).then(() => console.log('ran'), ({ code }) => console.log(code));`;
  const limited = ['-c', 'ulimit -n 100; exec "$0" -e "$1"', process.execPath, script];
  expect(execFileSync('sh', limited, { encoding: 'utf8' })).toBe('EMFILE\n');
});
