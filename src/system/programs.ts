// Finding and running the programs that make, check, grow and unpack images.

import type { ChildProcess, SpawnOptions } from 'node:child_process';
import { access, constants, stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, delimiter, join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { abortError, failedWith, RootfsError, type RootfsErrorCode } from './errors.js';
import { Task } from './task.js';
import { Turns } from './turns.js';

// Distributions put e2fsprogs here, and a plain user's PATH lacks these folders.
const SYSTEM_FOLDERS = ['/usr/sbin', '/sbin', '/usr/local/sbin'];

// What env -i starts has none.
const USUAL_PATH = '/usr/local/bin:/usr/bin:/bin';

/** The path of a program. A name without a slash is looked up on PATH and in the folders of system programs. */
export async function findProgram(name: string): Promise<string | undefined> {
  if (name.includes('/')) return (await isExecutable(name)) ? name : undefined;
  const folders = (process.env.PATH || USUAL_PATH).split(delimiter).filter((folder) => folder !== '');
  for (const folder of [...folders, ...SYSTEM_FOLDERS]) {
    const path = join(folder, name);
    if (await isExecutable(path)) return path;
  }
  return undefined;
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}

export interface Exit {
  /** Null if a signal ended it. */
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

// Of a failing program's output, the end is enough for a message.
const OUTPUT_LIMIT = 16 * 1024;

// The variables that programs inherit: where to find things, and what is loaded into every process. Any other could
// change what they do, such as TAR_OPTIONS, XZ_DEFAULTS, ZSTD_CLEVEL, MKE2FS_*, E2FSPROGS_*, SOURCE_DATE_EPOCH, TZ and
// LANG.
const PASSED_ON = new RegExp(
  `^(${[
    ...['PATH', 'HOME', 'TMPDIR', 'LD_.*', 'NIX_LD.*', '[ALTU]+SAN_OPTIONS'],
    ...['FAKEROOT.*', 'FAKED_.*'],
    // How a registry is reached.
    ...[
      '(https?|no|all)_proxy',
      '(HTTPS?|NO|ALL)_PROXY',
      'SSL_CERT_.*',
      'XDG_RUNTIME_DIR',
      'REGISTRY_AUTH_FILE',
      'DOCKER_CONFIG',
    ],
  ].join('|')})$`,
);

function cleanEnvironment(): Record<string, string | undefined> {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => PASSED_ON.test(name)));
}

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
  /** Where the program writes its output instead. `read` is called as soon as it has started. */
  readonly output?: { readonly fd: number; readonly read: () => Promise<void> };
  /** Ctrl-C on a terminal reaches all of a process group, and so not this program: only `signal` ends it. */
  readonly ownGroup?: boolean;
}

// Node starts a program on the thread of the event loop, which takes milliseconds, and a program that works on a disk
// wants a processor.
const AT_ONCE = Math.max(2, availableParallelism());

let lastStart = Promise.resolve();

/** One start in a turn of the event loop: several that end together would start their successors together. */
function nextStart(): Promise<void> {
  lastStart = lastStart.then(() => new Promise((resolve) => setImmediate(resolve)));
  return lastStart;
}

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
  return turnsOf(program).run(task, () => runNow(program, args, signal, options));
}

async function runNow(
  program: string,
  args: readonly string[],
  signal: AbortSignal | undefined,
  options: RunOptions,
): Promise<Exit> {
  // Loaded on first use: few processes need it, and loading takes milliseconds.
  const { spawn } = await import('node:child_process');
  await nextStart();
  return new Promise((resolve, reject) => {
    const child = spawn(...commandOf(program, args, options), spawnOptions(signal, options));
    let failure: unknown;
    child.on('error', (error) => {
      failure ??= signal?.aborted ? abortError(`running ${program}`, signal) : error;
      // Without a process there is no `close` to wait for.
      if (child.pid === undefined) reject(failure);
    });
    // It has no streams either if there are no descriptors left.
    if (child.pid === undefined) return;
    // A thread of the pool reads what it writes, and process.exit() waits for that thread: it would wait for ever.
    if (options.output !== undefined) killAtExit(child);
    const output = gatherOutput(child, options);
    const streaming = startStreams(child, options).map((stream) =>
      stream?.catch((error) => {
        // A program that ends before it has read its whole input says why itself, or is said to have been killed.
        if (failedWith(error, 'EPIPE') || isPrematureClose(error)) return;
        failure ??= error;
        child.kill('SIGKILL');
      }),
    );
    child.on('close', async (status, killedBy) => {
      await Promise.all(streaming);
      if (failure === undefined) resolve({ status, signal: killedBy, ...output });
      else reject(failure);
    });
  });
}

function commandOf(
  program: string,
  args: readonly string[],
  { usualUmask }: RunOptions,
): [file: string, args: readonly string[]] {
  // Node's own umask is that of all its threads.
  return usualUmask ? ['/bin/sh', ['-c', 'umask 022; exec "$0" "$@"', program, ...args]] : [program, args];
}

function spawnOptions(
  signal: AbortSignal | undefined,
  { cwd, env, feed, output, ownGroup = false }: RunOptions,
): SpawnOptions {
  return {
    stdio: [feed === undefined ? 'ignore' : 'pipe', output?.fd ?? 'pipe', 'pipe'],
    env: { ...cleanEnvironment(), ...env, LC_ALL: 'C' },
    detached: ownGroup,
    ...(cwd === undefined ? {} : { cwd }),
    ...(signal === undefined ? {} : { signal, killSignal: 'SIGKILL' }),
  };
}

/** What the program has written so far, unless somebody else reads it. */
function gatherOutput(child: ChildProcess, { drain }: RunOptions): Pick<Exit, 'stdout' | 'stderr'> {
  const output = { stdout: '', stderr: '' };
  const gather = (name: 'stdout' | 'stderr', stream: Readable) =>
    stream.setEncoding('utf8').on('data', (text: string) => {
      output[name] = (output[name] + text).slice(-OUTPUT_LIMIT);
    });
  gather('stderr', child.stderr as Readable);
  if (child.stdout !== null && drain === undefined) gather('stdout', child.stdout);
  return output;
}

/** Starts to write the program's input and to read its output. */
function startStreams(
  child: ChildProcess,
  { feed, drain, output }: RunOptions,
): (Promise<void> | undefined)[] {
  // A program that ends before it has read its input breaks the pipe. Whoever feeds it may have ended by then, and an
  // error that nobody listens to would end this process.
  child.stdin?.on('error', () => {});
  return [
    feed?.(child.stdin as Writable),
    child.stdout === null ? undefined : drain?.(child.stdout),
    output?.read(),
  ];
}

const killedAtExit = new Set<ChildProcess>();

function killAtExit(child: ChildProcess): void {
  if (killedAtExit.size === 0) process.on('exit', killAll);
  killedAtExit.add(child);
  child.on('close', () => {
    killedAtExit.delete(child);
    if (killedAtExit.size === 0) process.off('exit', killAll);
  });
}

function killAll(): void {
  for (const child of killedAtExit) child.kill('SIGKILL');
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

/** {@link run} for a program that may be missing. The error then has the program's code and names the package. */
export async function runInstalled(
  program: Program,
  args: readonly string[],
  signal: AbortSignal | undefined,
  options: RunOptions = {},
): Promise<Exit> {
  const found = await findProgram(program.name);
  try {
    if (found !== undefined) return await run(found, args, signal, options);
  } catch (error) {
    // The same for a script without its interpreter and a file that is not a program.
    const notStarted = failedWith(error, 'ENOENT', 'EACCES', 'ENOEXEC');
    if (!notStarted || !(error as { syscall: string }).syscall.startsWith('spawn')) throw error;
  }
  const remedy = program.name.includes('/') ? 'correct the path, or install' : 'install';
  throw new RootfsError(
    program.notFound,
    `cannot run ${program.name}: there is no such program, or it cannot be executed; ${remedy} the ` +
      `package ${program.package}`,
    { path: program.name },
  );
}

// Programs report a full disk only in words. C begins them with a capital letter, Go does not. The second text is tar's
// for a short write.
const SYSTEM_WORDS = {
  ENOSPC: /no space left on device|Wrote only \d+ of \d+ bytes/i,
  EDQUOT: /disk quota exceeded/i,
} as const;

/** What programs say when this machine is at fault, not what they were given. */
const OUR_FAULT = new RegExp(
  'cannot allocate memory|too many open files|input/output error|permission denied|operation not permitted|' +
    'read-only file system|resource temporarily unavailable|failed creating i/o thread pool|' +
    'error while loading shared libraries',
  'i',
);

/** Codes that say that what the program was given is at fault. */
const BLAMES_INPUT: readonly RootfsErrorCode[] = ['IMAGE_INVALID', 'ARTIFACT_INVALID'];

/**
 * The error of a failed program: `code`, or the system's code if the program reports a full disk. A program that was
 * killed, as by a kernel that is out of memory, has found no fault in what it was given: that is `PROGRAM_FAILED`.
 */
export function programFailed(
  code: RootfsErrorCode,
  program: string,
  path: string,
  exit: Exit,
  advice = '',
): RootfsError {
  const how = exit.status === null ? `was killed by ${exit.signal}` : `exited with status ${exit.status}`;
  const said = exit.stderr.trim() || exit.stdout.trim();
  const failed = isFaultOfThisMachine(exit) && BLAMES_INPUT.includes(code) ? 'PROGRAM_FAILED' : code;
  return new RootfsError(codeOfFullDisk(said) ?? failed, `${program} ${how} on ${path}: ${said}${advice}`, {
    path,
  });
}

/** Whether the program was killed, or says that this machine is at fault. */
export function isFaultOfThisMachine({ status, stderr, stdout }: Exit): boolean {
  const said = stderr.trim() || stdout;
  return status === null || OUR_FAULT.test(said) || codeOfFullDisk(said) !== undefined;
}

function codeOfFullDisk(said: string): string | undefined {
  return Object.entries(SYSTEM_WORDS).find(([, words]) => words.test(said))?.[0];
}
