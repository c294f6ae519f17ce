// Completion as a shell asks for it.
import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, symlink, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { expect, test } from 'vitest';
import { Host } from '../fixtures/host.js';
import { cli, cliEnvironment, MAIN } from './run-cli.js';

async function completed(host: Host, ...words: string[]): Promise<string[]> {
  const { stdout } = await cli(host, ['__complete', '--', ...words]);
  return stdout.split('\n').filter((line) => line !== '');
}

test('commands, options, templates and VMs are completed', async () => {
  const host = await Host.in();
  await host.addTemplate('debian-12', 'x');
  await host.addTemplate('alpine', 'x');
  await host.registry.cloneForVm('vm-1', 'alpine', { writable: true });
  expect(await completed(host, 're')).toEqual(['recover', 'release', 'remote', 'restore']);
  expect(await completed(host, 'clone', 'vm-1', '')).toEqual(['alpine', 'debian-12']);
  expect(await completed(host, 'clone', '--size', '8G', 'vm-1', 'd')).toEqual(['debian-12']);
  expect(await completed(host, 'release', 'x', 'v')).toEqual(['vm-1']);
  expect(await completed(host, '--json', 'clone', '--w')).toEqual(['--writable']);
  expect(await completed(host, 'completion', '')).toEqual(['bash', 'fish', 'zsh']);
  expect(await completed(host, 'grow', '--stack', 'a')).toEqual(['alpine']);
  expect(await completed(host, 'gc', '--keep', '')).toEqual(['vm-1']);
  expect(await completed(host, 'gc', '--keep', 'x', 'v')).toEqual(['vm-1']);
  expect(await completed(host, 'gc', '--keep', 'x', '--y')).toEqual(['--yes']);
  expect(await completed(host, 'gc', '--keep', 'x', '--yes', '')).toEqual([]);
  expect(await completed(host, 'help', 'st')).toEqual(['stacks', 'store']);
  // Their own words are the shell's to complete.
  expect(await completed(host, 'help', 'store', '')).toEqual([]);
  expect(await completed(host, 'grow', '--image', '')).toEqual([]);
  expect(await completed(host, 'gc', '--keep-file', '')).toEqual([]);
  expect(await completed(host, 'hash', '')).toEqual([]);
  expect(await completed(host, 'clone', '--size', '')).toEqual([]);
});

test('snapshots, values and names in the folders that stand on the line are completed', async () => {
  const host = await Host.in();
  const other = await Host.in();
  await other.addTemplate('debian-12', 'x');
  await other.registry.cloneForVm('vm-1', 'debian-12', { writable: true });
  await other.registry.snapshotSlot('vm-1', 'golden');
  const folders = ['--templates', other.templateDir, `--clones=${other.clonesDir}`];
  expect(await completed(host, ...folders, 'clone', 'vm-2', '')).toEqual(['debian-12']);
  expect(await completed(host, 'release', ...folders, '')).toEqual(['vm-1']);
  for (const command of ['restore', 'rm-snapshot', 'push-snapshot'])
    expect(await completed(host, ...folders, command, 'g')).toEqual(['golden']);
  expect(await completed(host, ...folders, 'prewarm', '--snapshot', '')).toEqual(['golden']);
  expect(await completed(host, 'store', 'create', '--fs', '')).toEqual(['btrfs', 'xfs']);
  const config = join(host.root, 'config.json');
  await writeFile(
    config,
    JSON.stringify({ snapshotsDir: join(other.clonesDir, '.microvm-rootfs/snapshots') }),
  );
  expect(await completed(host, '--config', config, 'restore', '')).toEqual(['golden']);
  expect(await completed(host, '--config', join(host.root, 'none.json'), 'cl')).toEqual(['clone']);
});

test('a name that a terminal could not show as it is, is not offered', async () => {
  const host = await Host.in();
  for (const name of ['plain', 'a\nb', 'a\u2028b', 'a\u202eb']) await host.addTemplate(name, 'x');
  expect(await completed(host, 'clone', 'vm-1', '')).toEqual(['plain']);
});

/** What a shell's script says when it asks the command, which lies on PATH. */
async function inShell(host: Host, shell: string, args: readonly string[]): Promise<string> {
  const bin = await mkdtemp(join(host.root, 'bin-'));
  await symlink(MAIN, join(bin, 'microvm-rootfs'));
  const { status, stdout, stderr } = spawnSync(shell, args, {
    encoding: 'utf8',
    cwd: host.root,
    env: cliEnvironment(host, { PATH: `${bin}${delimiter}${process.env.PATH}`, HOME: host.root }),
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout;
}

function lacksShell(shell: string): string | undefined {
  return spawnSync(shell, ['-c', 'true']).status === 0 ? undefined : `needs ${shell} (package ${shell})`;
}

test('bash takes the script, and completes with it', async () => {
  const host = await Host.in();
  await host.addTemplate('debian-12', 'x');
  const script = `
    source <(microvm-rootfs completion bash) || exit 1
    COMP_WORDS=(microvm-rootfs clone vm-1 deb) COMP_CWORD=3
    _microvm_rootfs
    echo "\${COMPREPLY[@]}"
    complete -p microvm-rootfs`;
  expect(await inShell(host, 'bash', ['-c', script])).toBe(
    'debian-12\ncomplete -o default -F _microvm_rootfs microvm-rootfs\n',
  );
});

test('zsh does, sourced or as a function on $fpath', async ({ skip }) => {
  const missing = lacksShell('zsh');
  if (missing) skip(missing);
  const host = await Host.in();
  await host.addTemplate('debian-12', 'x');
  // Only in zsh's own editor is there a compadd: this one prints what it is given.
  const complete = `
    compadd() { shift; print -l -- \${(P)1} }
    words=(microvm-rootfs clone vm-1 deb) CURRENT=4 PREFIX=deb
    echo $_comps[microvm-rootfs]; $_comps[microvm-rootfs]`;
  const sourced = `autoload -U compinit; compinit -u -D; source <(microvm-rootfs completion zsh)`;
  expect(await inShell(host, 'zsh', ['-fc', sourced + complete])).toBe('_microvm_rootfs\ndebian-12\n');
  const onPath = `
    mkdir functions; microvm-rootfs completion zsh >functions/_microvm-rootfs
    fpath=($PWD/functions $fpath); autoload -U compinit; compinit -u -D`;
  expect(await inShell(host, 'zsh', ['-fc', onPath + complete])).toBe('_microvm-rootfs\ndebian-12\n');
});

test('fish does, and offers files where nothing of ours fits', async ({ skip }) => {
  const missing = lacksShell('fish');
  if (missing) skip(missing);
  const host = await Host.in();
  await host.addTemplate('debian-12', 'x');
  await writeFile(join(host.root, 'memory.snap'), '');
  const script = `
    source (microvm-rootfs completion fish | psub)
    complete -C 'microvm-rootfs clone vm-1 '
    complete -C 'microvm-rootfs hash mem'`;
  expect(await inShell(host, 'fish', ['-c', script])).toBe('debian-12\nmemory.snap\n');
});

/** Names of folders that a shell would run, split or unquote, if they were more than data to it. */
const HOSTILE = ['$(touch pwned)', '`touch pwned`', "it's", 'my disk'];

async function hostOfHostileNames(): Promise<Host> {
  const host = await Host.in();
  for (const name of [...HOSTILE, '--force', 'two\nlines'])
    await mkdir(join(host.templateDir, name), { recursive: true });
  return host;
}

test('names that are options, or more than a line, are not offered', async () => {
  expect(await completed(await hostOfHostileNames(), 'rm-stack', '')).toEqual([...HOSTILE].sort());
});

test.each([
  ['', String.raw`\$\(touch\ pwned\) \`touch\ pwned\` it\'s my\ disk`],
  ['my', String.raw`my\ disk`],
  [String.raw`my\ d`, String.raw`my\ disk`],
  ["'my d", 'my disk'],
  ['"my', 'my disk'],
  ["'it", ''],
  [String.raw`\$`, String.raw`\$\(touch\ pwned\)`],
])('bash runs no name of a folder, and quotes what it offers for <%s>', async (typed, offered) => {
  const host = await hostOfHostileNames();
  const script = `
    source <(microvm-rootfs completion bash)
    COMP_WORDS=(microvm-rootfs rm-stack "$0") COMP_CWORD=2
    _microvm_rootfs
    echo "\${COMPREPLY[*]}"`;
  expect(await inShell(host, 'bash', ['-c', script, typed])).toBe(`${offered}\n`);
  expect(await readdir(host.root)).not.toContain('pwned');
});

test.for<[string, string[]]>([
  ['', [...HOSTILE].sort()],
  [String.raw`my\ d`, ['my disk']],
  ["'my", ['my disk']],
])('zsh runs no name of a folder for <%s>', async ([typed, offered], { skip }) => {
  const missing = lacksShell('zsh');
  if (missing) skip(missing);
  const host = await hostOfHostileNames();
  const script = `
    compadd() { shift; print -rl -- \${(P)1} }
    autoload -U compinit; compinit -u -D; source <(microvm-rootfs completion zsh)
    words=(microvm-rootfs rm-stack "$1") CURRENT=3 PREFIX=\${1#[\\']}
    _microvm_rootfs`;
  expect((await inShell(host, 'zsh', ['-fc', script, 'zsh', typed])).trim().split('\n')).toEqual(offered);
  expect(await readdir(host.root)).not.toContain('pwned');
});

test.for<[string, string[]]>([
  ['', [...HOSTILE].sort()],
  [String.raw`my\ d`, ['my disk']],
  ["'my", ['my disk']],
])('fish runs no name of a folder for <%s>', async ([typed, offered], { skip }) => {
  const missing = lacksShell('fish');
  if (missing) skip(missing);
  const host = await hostOfHostileNames();
  const script = `source (microvm-rootfs completion fish | psub); complete -C "microvm-rootfs rm-stack $argv"`;
  expect((await inShell(host, 'fish', ['-c', script, typed])).trim().split('\n').sort()).toEqual(offered);
  expect(await readdir(host.root)).not.toContain('pwned');
});
