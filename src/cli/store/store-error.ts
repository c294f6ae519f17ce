// Errors of stores.
import { RootfsError } from '../../index.js';
import { findProgram } from '../../programs/find-program.js';
import { type Exit, type RunOptions, run } from '../../programs/run-program.js';

const PACKAGES: Readonly<Record<string, string>> = {
  'mkfs.xfs': 'xfsprogs',
  xfs_growfs: 'xfsprogs',
  xfs_repair: 'xfsprogs',
  'mkfs.btrfs': 'btrfs-progs',
  btrfs: 'btrfs-progs',
  chattr: 'e2fsprogs',
};

/** Mounting is root's. */
export function requireRoot(what: string): void {
  if (process.geteuid?.() === 0) return;
  throw new RootfsError('EPERM', `${what} needs root: run it with sudo`);
}

/** Throws `PROGRAM_NOT_FOUND`, before anything was begun. */
export async function requirePrograms(...names: readonly string[]): Promise<void> {
  for (const name of names) {
    if ((await findProgram(name)) !== undefined) continue;
    const packageName = PACKAGES[name] ?? 'util-linux';
    throw new RootfsError('PROGRAM_NOT_FOUND', `there is no ${name}: install the package ${packageName}`, {
      path: name,
    });
  }
}

/** Runs a system program to a good end. */
export async function runProgram(
  name: string,
  args: readonly string[],
  signal: AbortSignal | undefined,
  path: string,
): Promise<string> {
  const exit = await tryProgram(name, args, signal);
  if (exit.status === 0) return exit.stdout;
  throw storeProgramFailed(name, exit, path);
}

/** Runs it to whatever end. */
export async function tryProgram(
  name: string,
  args: readonly string[],
  signal: AbortSignal | undefined,
  options: RunOptions = {},
): Promise<Exit> {
  await requirePrograms(name);
  // Ctrl-C must not end a mount(8) half-way, nor look like a failure of the program.
  const inOwnGroup = { ...options, ownGroup: true };
  return run((await findProgram(name)) ?? name, args, signal, inOwnGroup);
}

/** Runs one that must not stop half-way: an abort is heeded when it has ended. */
export async function runToItsEnd(
  name: string,
  args: readonly string[],
  signal: AbortSignal,
  path: string,
): Promise<void> {
  const exit = await tryProgram(name, args, undefined);
  signal.throwIfAborted();
  if (exit.status !== 0) throw storeProgramFailed(name, exit, path);
}

// These programs tell the kind of failure in words only.
const CODES: readonly (readonly [RegExp, string])[] = [
  [/no space left|not enough space/i, 'ENOSPC'],
  [/disk quota exceeded/i, 'EDQUOT'],
  [/input\/output error/i, 'EIO'],
  [/target is busy|device is busy|resource busy/i, 'STORE_IN_USE'],
  [/permission denied|operation not permitted|must be superuser/i, 'EPERM'],
];

export function storeProgramFailed(name: string, exit: Exit, path: string): RootfsError {
  const said = (exit.stderr || exit.stdout).trim() || 'it printed nothing';
  const code = CODES.find(([words]) => words.test(said))?.[1] ?? 'STORE_FAILED';
  const how = exit.signal === null ? `ended with status ${exit.status}` : `was ended by ${exit.signal}`;
  return new RootfsError(code, `${name} ${how} on ${path}: ${said}`, { path });
}
