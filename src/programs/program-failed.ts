// What it means that a program failed.

import { RootfsError, type RootfsErrorCode } from '../system/errors.js';
import type { Exit } from './run-program.js';

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
  const why = `${said === '' ? '' : `: ${said}`}${advice}${adviceOfSignal(exit)}`;
  const failed = isFaultOfThisMachine(exit) && BLAMES_INPUT.includes(code) ? 'PROGRAM_FAILED' : code;
  return new RootfsError(codeOfFullDisk(said) ?? failed, `${program} ${how} on ${path}${why}`, { path });
}

/** A program that was killed cannot say why. */
function adviceOfSignal({ signal }: Exit): string {
  if (signal === 'SIGXFSZ') return '; raise the limit on the size of its files (ulimit -f)';
  if (signal !== 'SIGKILL') return '';
  return '; dmesg tells whether the kernel killed it for want of memory: make room, and try again';
}

/** Whether the program was killed, or says that this machine is at fault. */
export function isFaultOfThisMachine({ status, stderr, stdout }: Exit): boolean {
  const said = stderr.trim() || stdout;
  return status === null || OUR_FAULT.test(said) || codeOfFullDisk(said) !== undefined;
}

function codeOfFullDisk(said: string): string | undefined {
  return Object.entries(SYSTEM_WORDS).find(([, words]) => words.test(said))?.[0];
}
