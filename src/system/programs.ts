// Finding and running the programs that make, check, grow and unpack images.
import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { abortError, failedWith, RootfsError, type RootfsErrorCode } from './errors.js';

// A plain user's PATH lacks these, and they are where distributions put e2fsprogs.
const SYSTEM_FOLDERS = ['/usr/sbin', '/sbin', '/usr/local/sbin'];

/** The path of a program: as it is if it holds a slash, else looked up on PATH and where system programs lie. */
export async function findProgram(name: string): Promise<string | undefined> {
  if (name.includes('/')) return (await isExecutable(name)) ? name : undefined;
  const folders = (process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== '');
  for (const folder of [...folders, ...SYSTEM_FOLDERS]) {
    const path = join(folder, name);
    if (await isExecutable(path)) return path;
  }
  return undefined;
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return true;
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

// What a failing program says is for a message: its last words are enough.
const OUTPUT_LIMIT = 16 * 1024;

// What programs get of this process's environment: where to find things, and what is loaded into every process. All the rest could change
// what they do: TAR_OPTIONS, XZ_DEFAULTS, ZSTD_CLEVEL, MKE2FS_*, E2FSPROGS_*, SOURCE_DATE_EPOCH, TZ, LANG, and names that are yet to come.
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
  /** On top of what every program gets. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Writes all that the program is to read. */
  readonly feed?: (stdin: Writable) => Promise<void>;
  /** Reads all that the program writes, which is then not in {@link Exit}. */
  readonly drain?: (stdout: Readable) => Promise<void>;
}

/**
 * Runs a program to its end. Rejects with the system's error if it cannot be started, `ABORT_ERR` if aborted (it is killed), or what `feed` or
 * `drain` rejected with (likewise).
 */
export async function run(
  program: string,
  args: readonly string[],
  signal: AbortSignal | undefined,
  { cwd, env, feed, drain }: RunOptions = {},
): Promise<Exit> {
  // Few processes ever need it, and loading it takes milliseconds.
  const { spawn } = await import('node:child_process');
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      stdio: [feed === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      env: { ...cleanEnvironment(), LC_ALL: 'C', ...env },
      ...(cwd === undefined ? {} : { cwd }),
      ...(signal === undefined ? {} : { signal, killSignal: 'SIGKILL' as const }),
    });
    const output = { stdout: '', stderr: '' };
    const { stdout, stderr } = child as { stdout: Readable; stderr: Readable };
    const gather = (name: 'stdout' | 'stderr', stream: Readable) =>
      stream.setEncoding('utf8').on('data', (text: string) => {
        output[name] = (output[name] + text).slice(-OUTPUT_LIMIT);
      });
    gather('stderr', stderr);
    if (drain === undefined) gather('stdout', stdout);
    let failure: unknown;
    const streaming = [feed?.(child.stdin as Writable), drain?.(stdout)].map((stream) =>
      stream?.catch((error) => {
        // A program that ended before it had read everything says itself why.
        if (failedWith(error, 'EPIPE')) return;
        failure ??= error;
        child.kill('SIGKILL');
      }),
    );
    child.on('error', (error) => {
      failure ??= signal?.aborted ? abortError(`running ${program}`, signal) : error;
      // Without a process there is no `close` to wait for.
      if (child.pid === undefined) reject(failure);
    });
    child.on('close', async (status, killedBy) => {
      await Promise.all(streaming);
      if (failure === undefined) resolve({ status, signal: killedBy, ...output });
      else reject(failure);
    });
  });
}

/** A program, how callers name it, the package that ships it, and the code of its absence. */
export interface Program {
  readonly name: string;
  readonly package: string;
  readonly notFound: RootfsErrorCode;
}

/** {@link run} for a program that may not be installed: then its own code says so, and the message names the package. */
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
    // A script whose interpreter is missing, a file that is no program: as good as not there.
    const notStarted = ['ENOENT', 'EACCES', 'ENOEXEC'].some((code) => failedWith(error, code));
    if (!notStarted || !(error as { syscall: string }).syscall.startsWith('spawn')) throw error;
  }
  const remedy = program.name.includes('/') ? 'correct the path, or install' : 'install';
  throw new RootfsError(
    program.notFound,
    `cannot run ${program.name}: there is no such program, or it cannot be executed; ${remedy} the package ${program.package}`,
    { path: program.name },
  );
}

// Programs have no other way to say it. The second is tar's, of a write that was cut short.
const SYSTEM_WORDS = {
  ENOSPC: /No space left on device|Wrote only \d+ of \d+ bytes/,
  EDQUOT: /Disk quota exceeded/,
} as const;

/** The error of a program that ended badly: `code`, or the system's where the program says that the disk is full. */
export function programFailed(
  code: RootfsErrorCode,
  program: string,
  path: string,
  exit: Exit,
  advice = '',
): RootfsError {
  const how = exit.status === null ? `was killed by ${exit.signal}` : `exited with status ${exit.status}`;
  const said = exit.stderr.trim() || exit.stdout.trim();
  const full = Object.entries(SYSTEM_WORDS).find(([, words]) => words.test(said))?.[0];
  return new RootfsError(full ?? code, `${program} ${how} on ${path}: ${said}${advice}`, { path });
}
