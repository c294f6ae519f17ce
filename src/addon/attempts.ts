// The ways of making a clone that were tried before one served.
import { errnoName } from '../system/errors.js';
import type { Strategy } from '../system/strategy.js';
import type { NativeAttempt } from './native.js';

/** A way that was tried and left. */
export interface Attempt {
  /** A rung of the ladder, or `seal`: no sealed image could be made, the clone came straight from the template. */
  readonly strategy: Strategy | 'seal';
  /** What it failed with, in Node's spelling (`ENOTSUP`, `EXDEV`, …); `SHORT` if the clone came out shorter than its source. */
  readonly code: string;
}

/** Ways that the addon left, as users are told of them. */
export function attemptsOf(attempts: readonly NativeAttempt[]): Attempt[] {
  return attempts.map(({ strategy, errno }) => ({
    strategy,
    code: errno === 0 ? 'SHORT' : errnoName(errno),
  }));
}
