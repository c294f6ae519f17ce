// Runs programs, for image/ (e2fsck, resize2fs), publish/ (mke2fs, tar, qemu-img, skopeo, umoci, decompressors,
// credential helpers), remote/ (zstd) and cli/ (cp for a comparison, doctor, store). test/layers.test.ts lists the
// files.

import { availableParallelism } from 'node:os';
import { basename } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';
import {
  abortError,
  asRootfsError,
  failedWith,
  RootfsError,
  type RootfsErrorCode,
} from '../system/errors.js';
import { onAbort } from '../system/on-abort.js';
import { Task } from '../system/task.js';
import { Turns } from '../system/turns.js';
import { Child, type Ending } from './child.js';
import { findProgram } from './find-program.js';
import type { HeldFile } from './held-file.js';

export interface Exit extends Ending {
  readonly stdout: string;
  readonly stderr: string;
}

// The end of a failing program's output is enough for a message.
const OUTPUT_LIMIT = 16 * 1024;

// The variables that programs inherit: where to find things, and what is loaded into every process. Any other could
// change what they do, such as TAR_OPTIONS, XZ_DEFAULTS, ZSTD_CLEVEL, MKE2FS_*, E2FSPROGS_*, SOURCE_DATE_EPOCH, TZ and
// LANG.
const VARIABLES = [
  'PATH',
  'HOME',
  'TMPDIR',
  'LD_.*',
  'NIX_LD.*',
  '[ALTU]+SAN_OPTIONS',
  'FAKEROOT.*',
  'FAKED_.*',
  // How a registry is reached.
  '(https?|no|all)_proxy',
  '(HTTPS?|NO|ALL)_PROXY',
  'SSL_CERT_.*',
  'XDG_RUNTIME_DIR',
  'REGISTRY_AUTH_FILE',
  'DOCKER_CONFIG',
];
const PASSED_ON = new RegExp(`^(${VARIABLES.join('|')})$`);

function cleanEnvironment(): Record<string, string | undefined> {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => PASSED_ON.test(name)));
}

// All but the first three descriptors are closed when a program starts. A shell moves the file from the place of the
// output to here, and what the program prints goes to where its errors go.
const HELD_FILE = '/proc/self/fd/3';
const TAKE_HELD_FILE = 'exec 3<&1 1>&2';

// A shell's status if it could not start a program.
const NOT_STARTED = [126, 127];

export interface RunOptions {
  readonly cwd?: string;
  /** For a program that makes files which others will see, whatever the umask of this process. */
  readonly usualUmask?: boolean;
  /** In addition to what every program gets. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Writes the program's whole input. */
  readonly feed?: (stdin: Writable) => Promise<void>;
  /** Reads the program's whole output, which is then not in {@link Exit}. */
  readonly drain?: (stdout: Readable) => Promise<void>;
  /** It waits for what it is fed, perhaps for long: others do not wait for their turn until it ends. */
  readonly outOfTurn?: boolean;
  /** It may run for hours because of what it was given: after this time others no longer wait for its end. */
  readonly turnMs?: number;
  /** Where the program writes its output instead. `read` is called as soon as it has started. */
  readonly output?: { readonly fd: number; readonly read: () => Promise<void> };
  readonly file?: HeldFile | undefined;
  /** Ctrl-C on a terminal reaches all of a process group, and so not this program: only `signal` ends it. */
  readonly ownGroup?: boolean;
  /**
   * For a program that may take long and writes only what a sweep removes: it is killed when this process ends, even by
   * SIGKILL. One that works on a disk in its place ends its work. Not together with `file`.
   */
  readonly diesWithUs?: boolean;
}

// A program that works on a disk wants a processor.
const AT_ONCE = Math.max(2, availableParallelism());

/** By the program's name: a resize of a moment does not wait for downloads that take minutes. */
const turnsByProgram = new Map<string, Turns>();

function turnsOf(program: string): Turns {
  const name = basename(program);
  const turns = turnsByProgram.get(name) ?? new Turns(AT_ONCE);
  turnsByProgram.set(name, turns);
  return turns;
}

/**
 * Runs a program to its end, when it is its turn: of each program, as many run at once as there are processors. Rejects
 * with the system's error if it cannot start, with `ABORT_ERR` if aborted, and with what `feed` or `drain` rejected
 * with. In the last two cases the program is killed.
 */
export function run(
  program: string,
  args: readonly string[],
  signal: AbortSignal | undefined,
  options: RunOptions = {},
): Promise<Exit> {
  if (options.outOfTurn) return runNow(program, args, signal, options);
  const task = new Task(`running ${program}`, signal);
  return turnsOf(program).run(task, async (endTurn) => {
    const { turnMs } = options;
    const timer = turnMs === undefined ? undefined : setTimeout(endTurn, turnMs).unref();
    try {
      return await runNow(program, args, signal, options);
    } finally {
      clearTimeout(timer);
    }
  });
}

async function runNow(
  program: string,
  args: readonly string[],
  signal: AbortSignal | undefined,
  options: RunOptions,
): Promise<Exit> {
  const task = new Task(`running ${program}`, signal);
  task.checkAborted();
  await options.file?.requireOurs();
  const child = await start(program, args, options).catch((error: unknown) => {
    throw asRootfsError(task.what, error);
  });
  const kill = () => child.kill();
  const stop = onAbort(signal, kill);
  if (signal?.aborted) kill();
  // A thread of the pool reads what it writes, and process.exit() waits for that thread: it would wait for ever.
  if (options.output !== undefined) killAtExit(child);
  try {
    const output = gatherOutput(child, options);
    const failures: unknown[] = [];
    const streaming = startStreams(child, options).map((stream) =>
      stream?.catch((error) => {
        // A program that ends before it has read its whole input says why itself, or is said to have been killed.
        if (failedWith(error, 'EPIPE') || isPrematureClose(error)) return;
        failures.push(error);
        kill();
      }),
    );
    const ending = await child.ended;
    await Promise.all(streaming);
    // Ctrl-C reaches the program as well, and Node tells that it has ended before it tells of the signal.
    if (ending.status !== 0) await nextTurn();
    if (signal?.aborted) throw abortError(task.what, signal);
    if (failures.length > 0) throw failures[0];
    return { ...ending, ...named(output, options.file) };
  } finally {
    stop();
    forgetAtExit(child);
  }
}

function start(program: string, args: readonly string[], options: RunOptions): Promise<Child> {
  const { env, feed, output, file, ownGroup = false, diesWithUs = false } = options;
  return Child.start(commandOf(program, args, options), {
    env: { ...cleanEnvironment(), ...env, LC_ALL: 'C' },
    feeds: feed !== undefined,
    ownGroup,
    diesWithUs,
    outputFd: file?.fd ?? output?.fd,
  });
}

const SHELL: Program = { name: '/bin/sh', package: 'dash', notFound: 'PROGRAM_NOT_FOUND' };

/** Folder and umask of this process are those of all its threads, so a shell sets those of the program. */
function commandOf(
  program: string,
  args: readonly string[],
  { cwd, usualUmask, file }: RunOptions,
): readonly string[] {
  if (cwd === undefined && !usualUmask && file === undefined) return [program, ...args];
  const prepare = [
    ...(usualUmask ? ['umask 022'] : []),
    ...(cwd === undefined ? [] : ['cd "$0"']),
    ...(file === undefined ? [] : [TAKE_HELD_FILE]),
  ];
  const given = args.map((arg) => (arg === file?.path ? HELD_FILE : arg));
  return [SHELL.name, '-c', `${prepare.join(' && ')} && exec "$@"`, cwd ?? '', program, ...given];
}

/** What a program says of a file that is held has the file's name. */
function named({ stdout, stderr }: Pick<Exit, 'stdout' | 'stderr'>, file: HeldFile | undefined) {
  return { stdout, stderr: file === undefined ? stderr : stderr.replaceAll(HELD_FILE, file.path) };
}

/** What the program has written so far, unless somebody else reads it. */
function gatherOutput({ stdout, stderr }: Child, { drain }: RunOptions): Pick<Exit, 'stdout' | 'stderr'> {
  const output = { stdout: '', stderr: '' };
  const gather = (name: 'stdout' | 'stderr', stream: Readable) =>
    stream.setEncoding('utf8').on('data', (text: string) => {
      output[name] = (output[name] + text).slice(-OUTPUT_LIMIT);
    });
  gather('stderr', stderr);
  if (stdout !== undefined && drain === undefined) gather('stdout', stdout);
  return output;
}

/** Starts to write the program's input and to read its output. */
function startStreams(
  { stdin, stdout }: Child,
  { feed, drain, output }: RunOptions,
): (Promise<void> | undefined)[] {
  // A program that ends before it has read its input breaks the pipe. Nobody may be feeding it any more,
  // and an error that nobody listens to would end this process.
  stdin?.on('error', () => {});
  return [
    stdin && feed?.(stdin),
    // What is left unread, if anything, would keep the pipe open.
    stdout && drain?.(stdout).finally(() => stdout.resume()),
    output?.read(),
  ];
}

const killedAtExit = new Set<Child>();

function killAtExit(child: Child): void {
  if (killedAtExit.size === 0) process.on('exit', killAll);
  killedAtExit.add(child);
}

function forgetAtExit(child: Child): void {
  if (killedAtExit.delete(child) && killedAtExit.size === 0) process.off('exit', killAll);
}

function killAll(): void {
  for (const child of killedAtExit) child.kill();
}

/** Node's stream to a program that has ended. */
function isPrematureClose(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ERR_STREAM_PREMATURE_CLOSE';
}

/** A program: its name, the package that ships it, and the error code if it is missing. */
export interface Program {
  readonly name: string;
  readonly package: string;
  readonly notFound: RootfsErrorCode;
}

/**
 * Looked at before long work that would be in vain without the program. Rejects as {@link runInstalled} does where it
 * is missing.
 */
export async function requireInstalled(program: Program): Promise<void> {
  if ((await findProgram(program.name)) === undefined) throw notInstalled(program);
}

/** {@link run} for a program that may be missing. The error then has the program's code and names the package. */
export async function runInstalled(
  program: Program,
  args: readonly string[],
  signal: AbortSignal | undefined,
  options: RunOptions = {},
): Promise<Exit> {
  const found = await findProgram(program.name);
  try {
    const exit = found === undefined ? undefined : await run(found, args, signal, options);
    const isShells = options.file !== undefined && NOT_STARTED.includes(exit?.status ?? 0);
    if (exit !== undefined && !isShells) return exit;
  } catch (error) {
    // The same for a script without its interpreter and a file that is not a program.
    const notStarted = failedWith(error, 'ENOENT', 'EACCES', 'ENOEXEC');
    if (!notStarted || !(error as { syscall: string }).syscall.startsWith('spawn')) throw error;
    if ((error as { path?: string }).path === SHELL.name) throw notInstalled(SHELL);
  }
  throw notInstalled(program);
}

function notInstalled(program: Program): RootfsError {
  const remedy = program.name.includes('/') ? 'correct the path, or install' : 'install';
  return new RootfsError(
    program.notFound,
    `cannot run ${program.name}: there is no such program, or it cannot be executed; ${remedy} the ` +
      `package ${program.package}`,
    { path: program.name },
  );
}
