// The zstd program, and how it compresses chunks. decompressor.ts decompresses them.

import { programFailed } from '../programs/program-failed.js';
import { runInstalled } from '../programs/run-program.js';
import { show } from '../system/arguments.js';
import { invalidArgument } from '../system/errors.js';
import type { Task } from '../system/task.js';

export const ZSTD = { name: 'zstd', package: 'zstd', notFound: 'PROGRAM_NOT_FOUND' } as const;

/** Compresses files to one frame each, in order, into an open file. One version of zstd always gives the same bytes. */
export async function compress(
  task: Task,
  files: readonly string[],
  level: number,
  cwd: string,
  outputFd: number,
): Promise<void> {
  const args = ['-q', '-c', '--no-check', '--single-thread', ...(level > 19 ? ['--ultra'] : []), `-${level}`];
  const exit = await runInstalled(ZSTD, [...args, '--', ...files], task.signal, {
    cwd,
    diesWithUs: true,
    output: { fd: outputFd, read: async () => {} },
  });
  if (exit.status !== 0) throw programFailed('PROGRAM_FAILED', ZSTD.name, cwd, exit);
}

export function requireLevel(level: unknown): number {
  if (level === undefined) return 3;
  if (typeof level === 'number' && Number.isInteger(level) && level >= 1 && level <= 22) return level;
  throw invalidArgument(`level must be an integer from 1 to 22, as zstd has them, got ${show(level)}`);
}
