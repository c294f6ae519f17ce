import { adviceOf } from '../../system/errno-advice.js';

export type Status = 'ok' | 'warn' | 'fail';

/** One thing that was looked at. */
export interface Finding {
  readonly check: string;
  /** `warn`: it works, slower or less safe than it could. `fail`: it does not work. */
  readonly status: Status;
  readonly detail: string;
  /** A command that puts it right. */
  readonly fix?: string;
}

export function ok(check: string, detail: string): Finding {
  return { check, status: 'ok', detail };
}

export function warn(check: string, detail: string, fix?: string): Finding {
  return { check, status: 'warn', detail, ...(fix === undefined ? {} : { fix }) };
}

export function fail(check: string, detail: string, fix?: string): Finding {
  return { check, status: 'fail', detail, ...(fix === undefined ? {} : { fix }) };
}

/** For a folder that the system does not let this process look at. */
export function cannotBeRead(path: string, error: unknown): string {
  const { code = '', syscall = '' } = error as NodeJS.ErrnoException;
  const advice = adviceOf(code, syscall);
  return `${path} cannot be read: ${code}${advice === undefined ? '' : `; ${advice}`}`;
}
