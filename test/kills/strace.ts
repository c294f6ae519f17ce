// strace on one thread of a process that runs already: what it calls, and what becomes of one of its calls.
import { spawn } from 'node:child_process';
import { readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

/** What to do with one call: the `when`-th of this name that the thread makes from now on. It is not executed. */
export interface Injection {
  readonly name: string;
  readonly when: number;
  /** `signal=SIGKILL`, `error=EIO`, `retval=0`. */
  readonly what: string;
}

export interface Trace {
  /** Lets go of the thread, unless it is gone already. The calls that it made, one a line. */
  end(): Promise<string[]>;
}

let logs = 0;

export function injectionArgs({ name, when, what }: Injection): string[] {
  return ['-e', `trace=${name}`, '-e', `inject=${name}:${what}:when=${when}`];
}

/** Resolves when every call that the thread makes is seen. Calls are counted from here, for each thread and name. */
export async function attach(thread: number, injection?: Injection): Promise<Trace> {
  const log = join(tmpdir(), `strace-${process.pid}-${logs++}.log`);
  const args = ['-y', '-s', '64', '-o', log, '-p', `${thread}`];
  const tracer = spawn('strace', [...args, ...(injection === undefined ? [] : injectionArgs(injection))], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const gone = new Promise<void>((resolve) => tracer.on('close', () => resolve()));
  onTestFinished(async () => {
    tracer.kill('SIGKILL');
    await gone;
  });
  await new Promise<void>((resolve, reject) => {
    let said = '';
    tracer.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      // With PTRACE_SEIZE and PTRACE_INTERRUPT no call is missed from this line on.
      if (said.includes(' attached')) resolve();
    });
    tracer.on('error', reject);
    tracer.on('close', () => reject(new Error(`strace ended before it was attached: ${said}`)));
  });
  return {
    async end() {
      tracer.kill('SIGINT');
      await gone;
      const text = await readFile(log, 'utf8');
      await rm(log);
      return text.split('\n');
    },
  };
}
