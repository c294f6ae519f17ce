import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { text } from 'node:stream/consumers';
import { expect, test, vi } from 'vitest';
import { native } from '../../src/addon/native.js';
import { Child, type ChildOptions } from '../../src/programs/child.js';
import { asRootfsError } from '../../src/system/errors.js';
import { runChild } from '../fixtures/child.js';
import { rejection } from '../fixtures/rejection.js';

const OPTIONS: ChildOptions = {
  env: { A: 'b c' },
  feeds: false,
  ownGroup: false,
  diesWithUs: false,
  outputFd: undefined,
};

const O_CLOEXEC = 0o2000000;
// 32 and 33, with which its threads tell each other something. It has programs ignore them.
const SIGNALS_OF_GLIBC = 0x1_8000_0000n;

/** What whoever started this process lets every program have. */
function inheritable(): string[] {
  return readdirSync('/proc/self/fdinfo').filter((fd) => {
    if (Number(fd) < 3 || !existsSync(`/proc/self/fdinfo/${fd}`)) return false;
    const [, flags = ''] = /^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')) ?? [];
    return (Number.parseInt(flags, 8) & O_CLOEXEC) === 0;
  });
}

const outputOf = (script: string, options?: Partial<ChildOptions>) =>
  outputOfProgram(['/bin/sh', '-c', script], options);

async function outputOfProgram(command: string[], options: Partial<ChildOptions> = {}): Promise<string> {
  const child = await Child.start(command, { ...OPTIONS, ...options });
  const output = await text(child.stdout as NodeJS.ReadableStream);
  expect(await child.ended).toEqual({ status: 0, signal: null });
  return output;
}

test('a program has no environment, descriptors, ignored or blocked signals but those that it was given', async () => {
  expect(await outputOfProgram(['/usr/bin/env'])).toBe('A=b c\n');
  const open = (await outputOf('ls /proc/self/fd')).trim().split('\n');
  expect(open.sort()).toEqual(['0', '1', '2', '3', ...inheritable()].sort());
  expect(await outputOf('readlink /proc/self/fd/0; cat')).toMatch(/^pipe:\S+\n$/);
  const signals = await outputOf('grep -E "SigBlk|SigIgn" /proc/self/status');
  for (const [mask] of signals.matchAll(/[0-9a-f]{16}/g))
    expect(BigInt(`0x${mask}`) & ~SIGNALS_OF_GLIBC, signals).toBe(0n);
});

test('a group of its own is one that a Ctrl-C for this process does not reach', async () => {
  const group = 'cut -d " " -f 5 /proc/self/stat';
  const own = readFileSync('/proc/self/stat', 'utf8').split(' ')[4];
  expect(await outputOf(`echo $(${group})`)).toBe(`${own}\n`);
  expect(await outputOf(`echo $(${group})`, { ownGroup: true })).not.toBe(`${own}\n`);
});

test('a program that closes its output and goes on is waited for', async () => {
  const child = await Child.start(['/bin/sh', '-c', 'exec >&- 2>&-; sleep 0.2; exit 5'], OPTIONS);
  child.stdout?.resume();
  child.stderr.resume();
  expect(await child.ended).toEqual({ status: 5, signal: null });
});

test('a program that is to die with this process does so when it is killed', async () => {
  const { stdout, signal } = await runChild(
    `const { Child } = require(args.module);
    const child = await Child.start(['/bin/sh', '-c', 'trap "" IO; echo $$; exec sleep 60'], args.options);
    child.stdout.once('data', (id) => process.stdout.write(id, () => process.kill(process.pid, 'SIGKILL')));`,
    { module: resolve('dist/programs/child.js'), options: { ...OPTIONS, diesWithUs: true } },
  );
  expect(signal).toBe('SIGKILL');
  const isAlive = async () => {
    // Empty of one that nobody has reaped yet.
    const command = await readFile(`/proc/${Number(stdout)}/cmdline`, 'utf8').catch(() => '');
    return command !== '';
  };
  await vi.waitFor(async () => expect(await isAlive()).toBe(false), 10_000);
});

test('a program that would die with this process ends as others do, and leaves no descriptor', async () => {
  const open = () => readdirSync('/proc/self/fd').length;
  await outputOf('true', { diesWithUs: true });
  const before = open();
  expect(await outputOf('readlink /proc/self/fd/3', { diesWithUs: true })).toMatch(/^pipe:/);
  await vi.waitFor(() => expect(open()).toBe(before));
});

test('a program that has ended is not killed: its id may be that of another', async () => {
  const child = await Child.start(['/bin/true'], OPTIONS);
  child.stdout?.resume();
  child.stderr.resume();
  await child.ended;
  child.kill();
});

test('what is no program is an error of the start, and leaves no process', async () => {
  const start = (path: string) =>
    Child.start([path], OPTIONS).catch((error: unknown) => {
      throw asRootfsError('starting', error);
    });
  expect(await rejection(start('/nonexistent'), 'ENOENT')).toMatchObject({ syscall: 'spawn' });
  await rejection(start('/etc/passwd'), 'EACCES');
  expect(() => native().reapProgram(-1)).toThrow();
});
