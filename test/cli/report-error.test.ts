// What of an error reaches a person or a program, whatever was thrown.
import { CommanderError } from 'commander';
import { expect, onTestFinished, test, vi } from 'vitest';
import { EXIT } from '../../src/cli/exit-codes.js';
import { Interrupted } from '../../src/cli/interruption.js';
import { AlreadyReported, reportError, reportWarning } from '../../src/cli/report-error.js';
import { RootfsError } from '../../src/index.js';

/** What is written to stderr, and the status. */
function reported(
  error: unknown,
  style: { json?: boolean; verbose?: boolean } = {},
): { text: string; status: number } {
  const write = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  onTestFinished(() => write.mockRestore());
  const status = reportError(error, { json: false, verbose: false, ...style }, 'microvm-rootfs clone');
  const text = write.mock.calls.map(([part]) => String(part)).join('');
  write.mockRestore();
  return { text, status };
}

const json = (error: unknown, verbose = false) =>
  JSON.parse(reported(error, { json: true, verbose }).text).error;

const system = Object.assign(new Error('open'), { errno: -13, syscall: 'open', path: '/x', dest: undefined });

test('an error of ours is one line with its code', () => {
  expect(reported(new RootfsError('SLOT_TORN', 'the slot is torn'))).toEqual({
    text: 'microvm-rootfs: SLOT_TORN: the slot is torn\n',
    status: EXIT.refused,
  });
  expect(json(new RootfsError('ENOSPC', 'full', { errno: -28, syscall: 'write', path: '/a' }))).toEqual({
    code: 'ENOSPC',
    message: 'full',
    errno: -28,
    syscall: 'write',
    path: '/a',
  });
});

test('an error of the addon has the name of its number and what it was about', () => {
  const advice = 'check who owns the folder and what this process may do';
  const text = `microvm-rootfs: EACCES: open /x; ${advice}\n`;
  expect(reported(system)).toEqual({ text, status: EXIT.system });
  const node = Object.assign(new Error("EACCES: permission denied, open '/x'"), { code: 'EACCES' });
  expect(reported(node).text).toBe("microvm-rootfs: EACCES: permission denied, open '/x'\n");
});

test.each<[unknown, string]>([
  ['a text', 'a text'],
  [undefined, 'undefined'],
  [null, 'null'],
  [5, '5'],
  [{}, '[object Object]'],
  [new Error('a fault of ours'), 'a fault of ours'],
  [Object.assign(new Error('x'), { code: 5 }), 'x'],
  [Object.assign(new Error('positive'), { errno: 5, syscall: 'x' }), 'positive'],
  [Object.assign(new Error('zero'), { errno: 0, syscall: 'x' }), 'zero'],
  [Object.assign(new Error('none'), { errno: Number.NaN, syscall: 'x' }), 'none'],
])('%s that was thrown is told, in words and as JSON', (thrown, words) => {
  for (const verbose of [false, true]) {
    const { text, status } = reported(thrown, { verbose });
    expect(text).toContain(words);
    expect(status).toBe(EXIT.failed);
    expect(json(thrown, verbose)).toMatchObject({ code: 'UNEXPECTED', message: words });
  }
});

test('nothing in a message, path or cause moves the cursor; its own line breaks stay', () => {
  const evil = 'a\x1b[31mb\rc\x9bd\u202ee\x7f';
  const error = new RootfsError('SLOT_TORN', `line one ${evil}\nline two`, {
    cause: new Error(`cause\n${evil}`),
  });
  const { text } = reported(error, { verbose: true });
  expect(text.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\p{Cf}]/u);
  expect(text.split('\n')).toHaveLength(4);
  expect(json(error).message).toBe(error.message);
});

test('causes are told on request, each once, of several all, and a circle ends', () => {
  const [one, two] = [new Error('one'), new Error('two')];
  one.cause = two;
  two.cause = one;
  const many = new AggregateError([one, new RootfsError('ENOENT', 'gone')], 'many', { cause: system });
  const error = new RootfsError('STORE_FAILED', 'failed', { cause: many });
  expect(reported(error).text.split('\n')).toHaveLength(2);
  expect(json(error)).not.toHaveProperty('causes');
  expect(json(error, true).causes).toEqual([
    { code: 'UNEXPECTED', message: 'many' },
    { code: 'UNEXPECTED', message: 'one' },
    { code: 'UNEXPECTED', message: 'two' },
    { code: 'ENOENT', message: 'gone' },
    { code: 'EACCES', message: 'open /x' },
  ]);
  expect(reported(error, { verbose: true }).text.match(/caused by/g)).toHaveLength(5);
});

test('the stack is told of what is a fault of ours, on request', () => {
  const error = new TypeError('x is not a function');
  expect(reported(error).text).not.toContain('report-error.test');
  expect(reported(error, { verbose: true }).text).toContain('report-error.test');
});

test('an interruption has the status of its signal, however deep it lies', () => {
  const interrupted = new Interrupted('SIGINT');
  expect(reported(interrupted).status).toBe(130);
  const aborted = new RootfsError('ABORT_ERR', 'cloning was aborted', { cause: interrupted });
  expect(reported(new RootfsError('ENOSPC', 'x', { cause: aborted })).status).toBe(130);
  expect(reported(new RootfsError('ABORT_ERR', 'x', { cause: new Interrupted('SIGTERM') })).status).toBe(143);
});

test('methods of the library are told as commands', () => {
  const told = (words: string) => reported(new RootfsError('ARTIFACT_INVALID', words)).text;
  expect(told("use publishStack('NAME', 'docker://r.example/app:1')")).toContain(
    'use microvm-rootfs publish NAME docker://r.example/app:1\n',
  );
  expect(told('pull it with pullStack')).toContain('pull it with microvm-rootfs pull\n');
  expect(told('pull it with pullSnapshot')).toContain('pull it with microvm-rootfs pull-snapshot\n');
  expect(told('or call recover(), which')).toContain('or run microvm-rootfs recover, which');
  expect(told('check it with verify()')).toContain('check it with microvm-rootfs verify\n');
  expect(told('stacks() lists what is there')).toContain(': microvm-rootfs stacks lists what is there\n');
  expect(told('snapshots() lists what is there')).toContain(': microvm-rootfs snapshots lists');
});

test('options of the library are told as flags', () => {
  const words = 'pass replace: true, force: true, writable: true or writable: false';
  const { text } = reported(new RootfsError('STACK_EXISTS', words));
  expect(text).toContain('pass --replace, --force, --writable or --read-only\n');
  const told = (message: string) => reported(new RootfsError('X', message)).text;
  expect(told('Set includeMounts to publish')).toContain('Set --include-mounts to publish\n');
  expect(told("give platform: 'linux/arm64' if")).toContain('give --platform linux/arm64 if\n');
  // The command has no option for these.
  expect(told('if you trust it, raise limits.maxFiles')).toContain(
    'if you trust it, publish it with the library, and raise limits.maxFiles\n',
  );
  const size = new RootfsError('INVALID_ARGUMENT', 'sizeBytes must be a multiple of 4096, got 1024');
  expect(reported(size).text).toContain(': --size must be a multiple of 4096');
  expect(reported(new RootfsError('X', 'reinforce: true, rewritable: true')).text).toContain(
    'reinforce: true',
  );
});

test('a wrong use tells where help is, and what was told already is not told again', () => {
  const wrong = new CommanderError(1, 'commander.unknownOption', "error: unknown option '--x'");
  expect(reported(wrong)).toEqual({
    text: "microvm-rootfs: USAGE: unknown option '--x'\nTry 'microvm-rootfs clone --help'.\n",
    status: EXIT.usage,
  });
  expect(reported(new CommanderError(0, 'commander.version', '1.0'))).toEqual({ text: '', status: EXIT.ok });
  expect(reported(new CommanderError(1, 'commander.help', '(outputHelp)'))).toEqual({
    text: '',
    status: EXIT.usage,
  });
  expect(reported(new AlreadyReported(7))).toEqual({ text: '', status: 7 });
});

test('a warning has its code as JSON and no control characters as text', () => {
  const write = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  onTestFinished(() => write.mockRestore());
  const warning = Object.assign(new Error('pass writable: true\x1b'), { code: 'SHARED' });
  reportWarning(warning, { json: true, verbose: false });
  reportWarning(warning, { json: false, verbose: false });
  const [first, second] = write.mock.calls.map(([text]) => String(text));
  write.mockRestore();
  expect(JSON.parse(first as string)).toEqual({
    warning: { code: 'SHARED', message: 'pass --writable\x1b' },
  });
  expect(second).toBe('microvm-rootfs: warning: pass --writable\\x1b\n');
});
