// The errors of this library: their codes, and how a failure of the system becomes one of them.

import { adviceOf } from './errno-advice.js';
import { errnoName } from './errno-names.js';

export { errnoName };

/** Codes of this library. A failure of the system keeps the system's own code (`ENOSPC`, `EIO`, …). */
export type RootfsErrorCode =
  | 'ABORT_ERR'
  | 'ADDON_NOT_LOADED'
  | 'ARTIFACT_INVALID'
  | 'CLONES_DIR_INVALID'
  | 'CLOSED'
  | 'DIGEST_MISMATCH'
  | 'E2FSCK_FAILED'
  | 'E2FSCK_NOT_FOUND'
  | 'FILE_EXISTS'
  | 'FOLDERS_OVERLAP'
  | 'IMAGE_INVALID'
  | 'INVALID_ARGUMENT'
  | 'INVALID_SNAPSHOT_NAME'
  | 'INVALID_STACK_NAME'
  | 'INVALID_VM_ID'
  | 'MKE2FS_FAILED'
  | 'MKE2FS_NOT_FOUND'
  | 'NOT_WARM'
  | 'PROGRAM_FAILED'
  | 'PROGRAM_NOT_FOUND'
  | 'REFERENCE_INVALID'
  | 'REGISTRY_BUSY'
  | 'REGISTRY_FAILED'
  | 'REGISTRY_NOT_FOUND'
  | 'REGISTRY_UNAUTHORIZED'
  | 'RESIZE2FS_NOT_FOUND'
  | 'RESIZE_FAILED'
  | 'SHARED_INODE'
  | 'SHRINK_REFUSED'
  | 'SIZE_STAMP_MISMATCH'
  | 'SLOT_BUSY'
  | 'SLOT_EXISTS'
  | 'SLOT_INVALID'
  | 'SLOT_IN_USE'
  | 'SLOT_NOT_FOUND'
  | 'SLOT_TORN'
  | 'SNAPSHOT_CORRUPT'
  | 'SNAPSHOT_EXISTS'
  | 'SNAPSHOT_NAME_COLLISION'
  | 'SNAPSHOT_NOT_FOUND'
  | 'SOURCE_CHANGED'
  | 'SOURCE_TOO_LARGE'
  | 'STACK_EXISTS'
  | 'STACK_NAME_COLLISION'
  | 'STACK_IN_USE'
  | 'STACK_NOT_FOUND'
  | 'STAMP_INVALID'
  | 'STAMP_MISMATCH'
  | 'TEMPLATE_CHANGED'
  | 'TEMPLATE_CORRUPT'
  | 'TEMPLATE_INVALID'
  | 'UNSAFE_PATH'
  | 'UNSUPPORTED_PLATFORM'
  | 'VM_ID_COLLISION';

interface SystemDetails {
  readonly errno?: number | undefined;
  readonly syscall?: string | undefined;
  readonly path?: string | undefined;
  readonly dest?: string | undefined;
  readonly cause?: unknown;
  readonly report?: unknown;
}

/** Every error of this library. The message says what was tried, what went wrong and what to do. */
export class RootfsError extends Error {
  override readonly name: string = 'RootfsError';
  /**
   * A {@link RootfsErrorCode}, or the system's code in Node's spelling (`ENOTSUP` for EOPNOTSUPP). The compiler takes
   * any string, and checks the spelling of one of ours where you ask for that:
   * `error.code === ('SLOT_IN_USE' satisfies RootfsErrorCode)`.
   */
  readonly code: RootfsErrorCode | (string & {});
  /** Negative, as Node has it. Only where a system call failed. */
  declare readonly errno?: number;
  declare readonly syscall?: string;
  declare readonly path?: string;
  declare readonly dest?: string;
  /**
   * What `gc`, `recover`, `verify`, `usage`, `readySlots` and `sealedImages` have done or found although something
   * failed: what they resolve to otherwise. Of `gc` and `recover` that were aborted: what was done until then.
   * Undefined if `gc` or `recover` did nothing.
   */
  declare readonly report?: unknown;

  constructor(code: RootfsErrorCode | (string & {}), message: string, details: SystemDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    if (code === 'ABORT_ERR') this.name = 'AbortError';
    if (details.errno !== undefined) this.errno = details.errno;
    if (details.syscall !== undefined) this.syscall = details.syscall;
    if (details.path !== undefined) this.path = details.path;
    if (details.dest !== undefined) this.dest = details.dest;
    if (details.report !== undefined) this.report = details.report;
  }
}

export function invalidArgument(message: string, details?: SystemDetails): RootfsError {
  return new RootfsError('INVALID_ARGUMENT', message, details);
}

export function closedError(): RootfsError {
  return new RootfsError('CLOSED', 'this RootfsRegistry is closed: create a new one');
}

/** The error of a call that its signal ended. */
export function abortError(what: string, signal: AbortSignal): RootfsError {
  return new RootfsError('ABORT_ERR', `${what} was aborted`, { cause: signal.reason });
}

/** What the addon, and Node's own `fs`, reject with. */
export interface SystemError {
  readonly errno: number;
  readonly syscall: string;
  readonly path?: string;
  readonly dest?: string;
  /** The change was made and stays; only its flush failed. */
  readonly changeMade?: boolean;
}

export function isSystemError(error: unknown): error is SystemError {
  return (
    typeof error === 'object' &&
    error !== null &&
    'errno' in error &&
    typeof error.errno === 'number' &&
    'syscall' in error &&
    typeof error.syscall === 'string'
  );
}

/** Whether the system failed with this code (`'ENOENT'`, …). */
export function failedWith(error: unknown, ...codes: readonly string[]): boolean {
  return isSystemError(error) && codes.includes(errnoName(error.errno));
}

/** Whether it is an error of this library with this code. */
export function hasCode(error: unknown, code: RootfsErrorCode): error is RootfsError {
  return error instanceof RootfsError && error.code === code;
}

/** Whether nothing has the path: ENOTDIR where a file has the name of a folder on it. */
export function isGone(error: unknown): boolean {
  return failedWith(error, 'ENOENT', 'ENOTDIR');
}

/** Whether there is no space left, on the disk or in a quota. */
export function isFull(error: unknown): error is SystemError {
  return failedWith(error, 'ENOSPC', 'EDQUOT');
}

/** Whether the folder cannot be moved to its place, or removed, since something else is there. */
export function isTaken(error: unknown): error is SystemError {
  return failedWith(error, 'ENOTEMPTY', 'EEXIST');
}

/** Whether this process may not write there: it lacks the right, or the file system is read-only. */
export function mayNotWrite(error: unknown): boolean {
  return failedWith(error, 'EACCES', 'EPERM', 'EROFS');
}

/**
 * Turns any failure of a step of `what` into a {@link RootfsError}. A RootfsError passes through unchanged.
 * `flushAgain` is for what was done and not flushed.
 */
export function asRootfsError(
  what: string,
  error: unknown,
  flushAgain = 'the same call flushes it again',
): unknown {
  if (error instanceof RootfsError || !isSystemError(error)) return error;
  const code = errnoName(error.errno);
  const where = [error.path, error.dest].filter((path) => path !== undefined && path !== '').join(' -> ');
  const failure = `${what}: ${error.syscall}${where === '' ? '' : ` ${where}`} failed with ${code}`;
  const notDurable = error.changeMade
    ? `it is done, but not flushed: a power cut can undo it; ${flushAgain}`
    : undefined;
  const advice = adviceOf(code, error.syscall);
  const message = [failure, notDurable, advice].filter((part) => part !== undefined).join('; ');
  return new RootfsError(code, message, {
    ...pick(error),
    cause: error instanceof Error ? error : undefined,
  });
}

/** The same error with what was done in spite of it. */
export function withReport(error: unknown, report: unknown): unknown {
  if (!(error instanceof RootfsError) || report === undefined) return error;
  const { code, message, errno, syscall, path, dest } = error;
  return new RootfsError(code, message, { errno, syscall, path, dest, cause: error.cause ?? error, report });
}

/** {@link withReport}, but for a report of numbers and lists that tells of nothing. */
export function withReportOfWork(error: unknown, report: object): unknown {
  const tellsOfWork = Object.values(report).some((part) => (Array.isArray(part) ? part.length : part) > 0);
  return tellsOfWork ? withReport(error, report) : error;
}

function pick(error: SystemError): SystemDetails {
  return { errno: error.errno, syscall: error.syscall, path: error.path, dest: error.dest };
}
