// Finding and running the programs of e2fsprogs.
import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { abortError } from './errors.js';

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

/** Runs a program to its end. Rejects with the system's error if it cannot be started, `ABORT_ERR` if aborted (it is killed). */
export async function run(
  program: string,
  args: readonly string[],
  signal: AbortSignal | undefined,
): Promise<Exit> {
  // Few processes ever need it, and loading it takes milliseconds.
  const { spawn } = await import('node:child_process');
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, LC_ALL: 'C' },
      ...(signal === undefined ? {} : { signal, killSignal: 'SIGKILL' as const }),
    });
    const output = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const) {
      child[name].setEncoding('utf8').on('data', (text: string) => {
        output[name] = (output[name] + text).slice(-OUTPUT_LIMIT);
      });
    }
    let failure: unknown;
    child.on('error', (error) => {
      failure = signal?.aborted ? abortError(`running ${program}`, signal) : error;
      // Without a process there is no `close` to wait for.
      if (child.pid === undefined) reject(failure);
    });
    child.on('close', (status, killedBy) => {
      if (failure === undefined) resolve({ status, signal: killedBy, ...output });
      else reject(failure);
    });
  });
}
