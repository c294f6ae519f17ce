// Completion as a shell asks for it.
import { spawnSync } from 'node:child_process';
import { chmod, mkdir, symlink } from 'node:fs/promises';
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
  expect(await completed(host, 're')).toEqual(['recover', 'release']);
  expect(await completed(host, 'clone', 'vm-1', '')).toEqual(['alpine', 'debian-12']);
  expect(await completed(host, 'clone', '--size', '8G', 'vm-1', 'd')).toEqual(['debian-12']);
  expect(await completed(host, 'release', 'x', 'v')).toEqual(['vm-1']);
  expect(await completed(host, '--json', 'clone', '--w')).toEqual(['--writable']);
  expect(await completed(host, 'completion', '')).toEqual(['bash', 'fish', 'zsh']);
  // Their own words are the shell's to complete.
  expect(await completed(host, 'hash', '')).toEqual([]);
  expect(await completed(host, 'clone', '--size', '')).toEqual([]);
});

test('bash takes the script, and completes with it', async () => {
  const host = await Host.in();
  await host.addTemplate('debian-12', 'x');
  const bin = join(host.root, 'bin');
  await mkdir(bin);
  await symlink(MAIN, join(bin, 'microvm-rootfs'));
  await chmod(MAIN, 0o755);
  const script = `
    source <(microvm-rootfs completion bash) || exit 1
    COMP_WORDS=(microvm-rootfs clone vm-1 deb) COMP_CWORD=3
    _microvm_rootfs
    echo "\${COMPREPLY[@]}"
    complete -p microvm-rootfs`;
  const { status, stdout, stderr } = spawnSync('bash', ['-c', script], {
    encoding: 'utf8',
    env: cliEnvironment(host, { PATH: `${bin}${delimiter}${process.env.PATH}` }),
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  expect(stdout).toBe('debian-12\ncomplete -o default -F _microvm_rootfs microvm-rootfs\n');
});

test.each(['zsh', 'fish'])('%s has a script as well', async (shell) => {
  const { code, stdout } = await cli(undefined, ['completion', shell]);
  expect(code).toBe(0);
  expect(stdout).toContain('microvm-rootfs __complete --');
});
