// The real command, in a process of its own, on the folders of a host.
import { type ChildProcess, spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { expect, onTestFinished } from 'vitest';
import { type ChildExit, exitOf } from '../fixtures/child.js';

export const MAIN = resolve('dist/cli/main.js');

export interface CliFolders {
  readonly templateDir: string;
  readonly clonesDir: string;
}

export interface CliOptions {
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly input?: string;
  /** A command to run it under: `['setpriv', …]`. */
  readonly under?: readonly string[];
  readonly cwd?: string;
}

export function startCli(
  folders: CliFolders | undefined,
  args: readonly string[],
  options: CliOptions = {},
): ChildProcess {
  const [command = '', ...rest] = [...(options.under ?? []), process.execPath, MAIN, ...args];
  const child = spawn(command, rest, {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: cliEnvironment(folders, options.env),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  child.stdin?.on('error', () => {}).end(options.input ?? '');
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  return child;
}

export function cliEnvironment(
  folders: CliFolders | undefined,
  env: Readonly<Record<string, string | undefined>> = {},
): NodeJS.ProcessEnv {
  return {
    ...process.env,
    // Whatever lies on this machine is not meant.
    MICROVM_ROOTFS_CONFIG: '',
    MICROVM_ROOTFS_TEMPLATE_DIR: folders?.templateDir,
    MICROVM_ROOTFS_CLONES_DIR: folders?.clonesDir,
    ...env,
  };
}

export function cli(
  folders: CliFolders | undefined,
  args: readonly string[],
  options: CliOptions = {},
): Promise<ChildExit> {
  return exitOf(startCli(folders, args, options));
}

/** The JSON document that a command prints when it succeeds, and that is all it prints. */
export async function cliJson<T = Record<string, unknown>>(
  folders: CliFolders | undefined,
  args: readonly string[],
  options: CliOptions = {},
): Promise<T> {
  const { code, stdout, stderr } = await cli(folders, [...args, '--json'], options);
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout);
}

/** The code of the error that a command fails with, as `--json` tells it on stderr, with the exit status. */
export async function cliError(
  folders: CliFolders | undefined,
  args: readonly string[],
  options: CliOptions = {},
): Promise<string> {
  const { code, stdout, stderr } = await cli(folders, [...args, '--json'], options);
  expect(stdout).toBe('');
  return `${JSON.parse(stderr).error.code} ${code}`;
}

/** The command on a terminal of its own. */
export function startOnTerminal(
  folders: CliFolders,
  args: readonly string[],
  cwd: string = process.cwd(),
): ChildProcess {
  const quoted = [process.execPath, MAIN, ...args].map((word) => `'${word.replaceAll("'", `'\\''`)}'`);
  // `exec`: the signal is for the command, not for a shell before it.
  const child = spawn(
    'script',
    ['--quiet', '--return', '--command', `exec ${quoted.join(' ')}`, '/dev/null'],
    {
      stdio: ['pipe', 'pipe', 'pipe'],
      cwd,
      env: cliEnvironment(folders, { NO_COLOR: undefined, TERM: 'xterm' }),
    },
  );
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  return child;
}
