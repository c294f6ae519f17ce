// The ways of making a clone that were tried before one served.
import { errnoName } from '../system/errors.js';
import type { Strategy } from '../system/strategy.js';
import type { NativeAttempt } from './native.js';

/** A rung that was tried and failed. */
export interface Attempt {
  /** The rung, or `seal` if no sealed image could be made and the clone came directly from the template. */
  readonly strategy: Strategy | 'seal';
  /** The error code in Node's spelling (`ENOTSUP`, `EXDEV`, …), or `SHORT` if the clone was shorter than its source. */
  readonly code: string;
}

/** Attempts as users see them. */
export function attemptsOf(attempts: readonly NativeAttempt[]): Attempt[] {
  return attempts.map(({ strategy, errno }) => ({
    strategy,
    code: errno === 0 ? 'SHORT' : errnoName(errno),
  }));
}
