// Wrong use, help, and what the shell sees of each kind of failure.
import { spawnSync } from 'node:child_process';
import type { EventEmitter } from 'node:events';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command, Option } from 'commander';
import { expect, test } from 'vitest';
import { buildProgram } from '../../src/cli/program.js';
import { exitOf } from '../fixtures/child.js';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';
import { lacksRoot } from '../fixtures/tools.js';
import { cli, cliEnvironment, cliError, cliJson, MAIN, startCli } from './run-cli.js';

test.each([
  ['a command that there is not', ['colne'], /unknown command 'colne'\n\(Did you mean clone\?\)/],
  ['an option that there is not', ['stacks', '--al'], /unknown option '--al'/],
  ['an argument too few', ['clone', 'vm-1'], /missing required argument 'stack'/],
  ['an argument too many', ['clone', 'vm-1', 'debian', '8G'], /too many arguments/],
  ['a size that is none', ['clone', 'a', 'b', '--size', '8X'], /8G, 512MiB/],
  ['a size with half a byte', ['clone', 'a', 'b', '--size', '0.3K'], /not a whole number/],
  ['an owner by name', ['clone', 'a', 'b', '--owner', 'root:root'], /1000:1000/],
  ['a mode that is none', ['clone', 'a', 'b', '--mode', '0999'], /0640/],
  [
    'options that exclude each other',
    ['clone', 'a', 'b', '--writable', '--read-only'],
    /cannot be used with/,
  ],
  [
    'an option given twice',
    ['clone', 'a', 'b', '--size', '1G', '--size', '2G'],
    /'--size <size>' is given twice/,
  ],
  [
    'a list of VMs beside none',
    ['gc', '--keep', 'vm-1', '--keep-none'],
    /cannot be used with option '--keep <vm...>'/,
  ],
  ['a stack for an image', ['grow', '--image', 'x', '1G', '--stack', 'y'], /cannot be used with/],
  ['clones beside snapshots', ['verify', '--with-clones', 'x'], /cannot be used with names of snapshots/],
  ['a benchmark of nothing', ['bench', '--size', '0'], /Give at least 1/],
  ['help for a command that there is not', ['help', 'nosuch'], /unknown command 'nosuch'/],
  ['a concurrency too high', ['push', 'a', 'h/a:1', '--concurrency', '65'], /number from 1 to 64/],
  ['a level too high', ['push', 'a', 'h/a:1', '--level', '23'], /number from 1 to 22/],
  ['a missing option', ['store', 'create', '/x'], /required option '--size <size>' not specified/],
])('%s is wrong use, in one line and without a stack', async (_what, args, words) => {
  const { code, stdout, stderr } = await cli(undefined, args);
  expect(code).toBe(2);
  expect(stdout).toBe('');
  expect(stderr).toMatch(/^microvm-rootfs: USAGE: /);
  expect(stderr).toMatch(words);
  const command = args[0] === 'colne' ? [] : args[0] === 'store' ? args.slice(0, 2) : args.slice(0, 1);
  expect(stderr).toContain(`Try '${['microvm-rootfs', ...command].join(' ')} --help'.`);
  expect(stderr).not.toMatch(/^ +at /m);
  expect(await cliError(undefined, args)).toBe('USAGE 2');
});

test('every option that has one value is refused when it is given twice, and every flag is not', () => {
  const given = (command: Command): [Command, Option][] => [
    ...command.options.map((option): [Command, Option] => [command, option]),
    ...command.commands.flatMap(given),
  ];
  const program = buildProgram();
  for (const [command, option] of given(program)) {
    const twice = () => {
      for (let i = 0; i < 2; i++)
        (command as unknown as EventEmitter).emit(`option:${option.name()}`, VALUES[option.name()] ?? '1');
    };
    if (option.name() === 'version') continue;
    if (option.variadic || option.isBoolean()) twice();
    else expect(twice, `${command.name()} ${option.flags}`).toThrow(/given twice/);
  }
});

const VALUES: Readonly<Record<string, string>> = {
  fs: 'xfs',
  format: 'raw',
  mode: '0640',
  owner: '1:1',
  sha256: 'a'.repeat(64),
};

test('a folder that is made, or is not there, is told: it may be misspelt', async () => {
  const host = await Host.in(filesystemNamed('XFS').path);
  await host.addTemplate('debian', 'bytes');
  const elsewhere = join(host.root, 'clonse');
  const misspelt = ['--clones', elsewhere];
  expect((await cli(host, [...misspelt, 'ls'])).stdout).toBe(`There is no folder ${elsewhere}.\n`);
  expect((await cli(host, [...misspelt, 'release', 'vm-1'])).stderr).toContain(
    `there is no folder ${elsewhere}`,
  );
  const cloned = await cli(host, [...misspelt, 'clone', 'vm-1', 'debian', '--writable']);
  expect(cloned.stderr).toBe(`microvm-rootfs: made the folder ${elsewhere}\n`);
  expect((await cli(host, [...misspelt, 'clone', 'vm-2', 'debian', '--writable'])).stderr).toBe('');
});

test('help names a command and its command', async () => {
  const { stdout } = await cli(undefined, ['help', 'store', 'create']);
  expect(stdout).toMatch(/^Usage: microvm-rootfs store create /);
});

test('names in the wrong order are told the right one', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
  await host.registry.snapshotSlot('vm-1', 'first');
  const clone = await cli(host, ['clone', 'debian', 'vm-1']);
  expect(clone.stderr).toMatch(/STACK_NOT_FOUND: .*; the order is: clone VM STACK\n$/);
  const restore = await cli(host, ['restore', 'vm-2', 'first']);
  expect(restore.stderr).toMatch(/SNAPSHOT_NOT_FOUND: .*; the order is: restore SNAPSHOT VM\n$/);
  const neither = await cli(host, ['clone', 'vm-1', 'none']);
  expect(neither.stderr).toMatch(/STACK_NOT_FOUND: .*; microvm-rootfs stacks lists what is there\n$/);
  const publish = await cli(host, ['publish', 'package.json', 'other']);
  expect(publish.stderr).toMatch(/the order is: publish NAME SOURCE\n$/);
});

test('a VM without a clone is told in one way, with the path', async () => {
  const host = await Host.in();
  const message = `SLOT_NOT_FOUND: VM vm_9 has no slot: ${join(host.clonesDir, 'vm_9')} does not exist`;
  for (const args of [
    ['inspect', 'vm/9'],
    ['grow', 'vm/9', '1G'],
    ['fork', 'vm/9', 'vm-1'],
  ])
    expect((await cli(host, args)).stderr).toContain(message);
});

test('a pipe that nothing came through is called empty', async () => {
  const { code, stderr } = await cli(await Host.in(), ['publish', 'web', '-'], { input: '' });
  expect(stderr).toContain('IMAGE_INVALID: standard input is empty: ');
  expect(code).toBe(1);
});

test('an error names the flags of the command, and what was done before it is told', async () => {
  const host = await Host.in(filesystemNamed('XFS').path);
  await host.addTemplate('debian', 'bytes');
  await cliJson(host, ['clone', 'vm-1', 'debian']);
  await cliJson(host, ['clone', 'vm-2', 'debian']);
  expect((await cli(host, ['rm-stack', 'debian'])).stderr).toMatch(/release them first, or give --force\n$/);
  const { code, stdout, stderr } = await cli(host, ['release', 'vm-1', '', 'vm-2']);
  expect(stdout).toMatch(/^vm-1 +released\nvm-2 +released$/m);
  expect(stderr).toContain('INVALID_VM_ID');
  expect(code).not.toBe(0);
});

test('without a command there is help on stderr', async () => {
  const { code, stdout, stderr } = await cli(undefined, []);
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  expect(stderr).toMatch(/^Usage: microvm-rootfs/);
  for (const words of [[], ['store'], ['help', 'colne']])
    expect(await cliError(undefined, words)).toBe('USAGE 2');
});

test('every command has help with an example and the options that all share', {
  timeout: 60_000,
}, async () => {
  for (const command of paths(buildProgram())) {
    const { code, stdout, stderr } = await cli(undefined, [...command, '--help']);
    expect({ command, code, stderr }).toEqual({ command, code: 0, stderr: '' });
    expect(stdout).toMatch(/^Examples?:\n {2}.*microvm-rootfs /m);
    expect(stdout).toContain('--json');
    // A size is told with its unit, and no text is Commander's own.
    expect(stdout).not.toMatch(/default: \d{4,}|display help/);
    expect(Math.max(...stdout.split('\n').map((line) => line.length))).toBeLessThanOrEqual(110);
  }
});

/** `['store', 'create']` and so on. */
function paths(command: Command): string[][] {
  return (command.createHelp().visibleCommands(command) as Command[])
    .filter((each) => each.name() !== 'help')
    .flatMap((each) => [[each.name()], ...paths(each).map((path) => [each.name(), ...path])]);
}

test('--version prints that of the package', async () => {
  const { version } = JSON.parse(spawnSync('cat', ['package.json'], { encoding: 'utf8' }).stdout);
  expect(await cli(undefined, ['--version'])).toMatchObject({ code: 0, stdout: `${version}\n` });
});

test('exit statuses tell what kind of failure it was', async () => {
  const host = await Host.in();
  await host.addTemplate('a', 'one');
  await host.addTemplate('b', 'two');
  await cliJson(host, ['clone', 'vm-1', 'a', '--writable']);
  expect(await cliError(host, ['clone', 'vm-1', 'none'])).toBe('STACK_NOT_FOUND 3');
  expect(await cliError(host, ['clone', 'vm-1', '../a'])).toBe('INVALID_STACK_NAME 2');
  expect(await cliError(host, ['clone', '', 'a'])).toBe('INVALID_VM_ID 2');
  expect(await cliError(host, ['clone', 'vm-1', 'b'])).toBe('STAMP_MISMATCH 4');
  await cliJson(host, ['clone', 'a/b', 'a', '--writable']);
  expect(await cliError(host, ['release', 'a_b'])).toBe('VM_ID_COLLISION 4');
  expect(await cliError(host, ['clone', 'vm-2', 'a', '--size', '1M', '--writable'])).toBe('IMAGE_INVALID 1');
  await host.addExt4Template('ext4', 4 * MiB);
  const missing = ['clone', 'vm-2', 'ext4', '--size', '8M', '--writable', '--resize2fs', '/nonexistent'];
  expect(await cliError(host, missing)).toBe('RESIZE2FS_NOT_FOUND 1');
  expect(await cliError(host, ['hash', '/nonexistent'])).toBe('ENOENT 3');
  const file = join(host.root, 'file');
  await writeFile(file, '');
  expect(
    await cliError({ ...host, templateDir: host.templateDir, clonesDir: file }, ['clone', 'x', 'a']),
  ).toBe('CLONES_DIR_INVALID 4');
});

test('what the system refuses is status 5, with errno and path in JSON', async ({ skip }) => {
  if (lacksRoot()) skip(lacksRoot());
  const host = await Host.in();
  await host.addTemplate('a', 'one');
  await mkdir(host.clonesDir);
  await chmod(host.root, 0o755);
  const under = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'];
  const { code, stderr } = await cli(host, ['clone', 'vm-1', 'a', '--writable', '--json'], { under });
  expect(code).toBe(5);
  const { error } = JSON.parse(stderr);
  expect(error).toMatchObject({ code: 'EACCES', errno: -13, syscall: expect.any(String) });
  expect(error.path).toContain(host.clonesDir);
});

test('--verbose tells what an error was caused by', async () => {
  const host = await Host.in();
  const { stderr } = await cli(host, ['hash', host.root, '--verbose']);
  expect(stderr).toMatch(/^microvm-rootfs: INVALID_ARGUMENT: .*not a regular file\n {2}caused by EINVAL: /);
  const json = await cli(host, ['hash', host.root, '--verbose', '--json']);
  expect(JSON.parse(json.stderr).error.causes).toMatchObject([{ code: 'EINVAL' }]);
  expect((await cli(host, ['hash', host.root])).stderr.trim().split('\n')).toHaveLength(1);
});

test('names from disk do not reach the terminal as they are', async () => {
  const host = await Host.in();
  await host.addTemplate('red\u001b[31m\nline', 'x');
  const { stdout } = await cli(host, ['stacks']);
  expect(stdout).not.toContain('\u001b');
  expect(stdout.trim().split('\n')).toHaveLength(2);
  expect(stdout).toContain('red\\x1b[31m\\x0aline');
});

test('a reader that has seen enough is no failure', async () => {
  const host = await Host.in();
  const child = startCli(host, ['stacks']);
  child.stdout?.destroy();
  expect(await exitOf(child)).toMatchObject({ code: 0, stderr: '' });
});

test('an answer that cannot be written is one', () => {
  const { status, stderr } = spawnSync('sh', ['-c', `"$0" "$1" --help > /dev/full`, process.execPath, MAIN], {
    encoding: 'utf8',
    env: cliEnvironment(undefined),
  });
  expect(status).toBe(5);
  expect(stderr).toMatch(/^microvm-rootfs: ENOSPC: /);
});

test('a full disk is told in one line and leaves nothing', async ({ skip }) => {
  const { path, missing } = filesystemNamed('tmpfs');
  if (missing) skip(missing);
  const host = await Host.in(path);
  await host.addTemplate('a', Buffer.alloc(1024, 'x'));
  expect(
    await cliError(host, ['clone', 'vm-1', 'a', '--writable'], {
      under: ['prlimit', '--fsize=512'],
    }),
  ).toMatch(/^E[A-Z]+ 5$/);
  expect(await host.slotNames()).toEqual([]);
});
