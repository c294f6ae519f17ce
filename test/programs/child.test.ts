import { readFileSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import { expect, test } from 'vitest';
import { native } from '../../src/addon/native.js';
import { Child, type ChildOptions } from '../../src/programs/child.js';
import { asRootfsError } from '../../src/system/errors.js';
import { rejection } from '../fixtures/rejection.js';

const OPTIONS: ChildOptions = { env: { A: 'b c' }, feeds: false, ownGroup: false, outputFd: undefined };

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
  expect((await outputOf('ls /proc/self/fd')).split('\n')).toEqual(['0', '1', '2', '3', '']);
  expect(await outputOf('readlink /proc/self/fd/0')).toBe('/dev/null\n');
  const signals = await outputOf('grep -E "SigBlk|SigIgn" /proc/self/status');
  expect(signals).toMatch(/^SigBlk:\t0+\nSigIgn:\t0+\n$/);
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
