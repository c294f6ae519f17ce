// The flags of what makes clones, as people type them.
import { Command } from 'commander';
import { expect, test } from 'vitest';
import {
  addCloneFlags,
  addCopyFlags,
  addSizeAndOwnerFlags,
  type CloneFlags,
  cloneOptions,
  copyOptions,
  parseCount,
  sizeAndOwnerOptions,
} from '../../src/cli/clone-flags.js';

function parsed(add: (command: Command) => Command, ...args: string[]): CloneFlags {
  const command = add(new Command('x').exitOverride().configureOutput({ writeErr: () => {} }));
  return command.parse(args, { from: 'user' }).opts();
}

const clone = (...args: string[]) => cloneOptions(parsed(addCloneFlags, ...args));

test('what is not typed is not an option', () => {
  expect(clone()).toEqual({});
  expect(copyOptions(parsed(addCopyFlags))).toEqual({});
  expect(sizeAndOwnerOptions(parsed(addSizeAndOwnerFlags))).toEqual({});
});

test('each flag is an option of the library', () => {
  expect(clone('--size', '1G', '--owner', '1000:0', '--mode', '0640', '--writable', '--durable')).toEqual({
    sizeBytes: 2 ** 30,
    owner: { uid: 1000, gid: 0 },
    mode: 0o640,
    writable: true,
    durable: true,
  });
  expect(clone('--read-only')).toEqual({ writable: false });
  expect(clone('--mode', '000', '--size', '0')).toEqual({ mode: 0, sizeBytes: 0 });
  expect(copyOptions(parsed(addCopyFlags, '--owner', '0:0', '--durable'))).toEqual({
    owner: { uid: 0, gid: 0 },
    durable: true,
  });
});

test.each([
  ['--writable', '--read-only'],
  ['--read-only', '--writable'],
])('%s and %s contradict each other', (...args) => {
  expect(() => clone(...args)).toThrow(/cannot be used with/);
});

test.each([
  '',
  '1000',
  '1000:',
  ':1',
  'root:root',
  '-1:0',
  '1.5:1',
  '1:1:1',
  '0x10:1',
  ' 1:1',
  '99999999999:1',
  '١:١',
])('the owner %j is none', (owner) => {
  expect(() => clone(`--owner=${owner}`)).toThrow(/two numbers/);
});

test.each(['', '64', '0', '888', '04755', '4755', '+x', 'u=rw', '0o640', '00640', '-640'])(
  'the mode %j is none',
  (mode) => {
    expect(() => clone(`--mode=${mode}`)).toThrow(/three octal digits/);
  },
);

test('a count is a whole number in plain digits', () => {
  for (const [text, count] of [
    ['0', 0],
    ['007', 7],
    ['9007199254740991', 2 ** 53 - 1],
  ] as const)
    expect(parseCount(text)).toBe(count);
  for (const text of ['', '-1', '1.0', '1e3', '0x1', ' 1', '9007199254740992', 'Infinity', '١'])
    expect(() => parseCount(text), text).toThrow(/whole number/);
});

test('a copy has no size, and a ready slot is neither writable nor flushed', () => {
  expect(() => parsed(addCopyFlags, '--size', '1G')).toThrow(/unknown option/);
  for (const flag of ['--writable', '--durable'])
    expect(() => parsed(addSizeAndOwnerFlags, flag)).toThrow(/unknown option/);
});
