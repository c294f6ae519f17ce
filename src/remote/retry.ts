// Tries again after a pause that doubles, or a longer one that the registry asks for.
import { backOffMs, MIRROR_TRIES, MOST_TRIES, pauseFor } from '../system/back-off.js';
import { hasCode, type RootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';

/** Also if the registry asks for a longer one. */
const LONGEST_PAUSE_MS = 60_000;

/** A failure that may pass. If it does not, the caller gets `error`. */
export class Transient extends Error {
  readonly error: RootfsError;
  readonly isBusy: boolean;
  readonly retryAfterMs: number | undefined;
  readonly tries: number;

  constructor(error: RootfsError, isBusy: boolean, retryAfterMs?: number, tries = MOST_TRIES) {
    super(error.message);
    this.error = error;
    this.isBusy = isBusy;
    this.retryAfterMs = retryAfterMs;
    this.tries = tries;
  }
}

/** Whether this HTTP status is likely to pass. */
export function isBusy(status: number): boolean {
  return status === 429 || status === 503;
}

/** How often a failure may happen before it is the answer. */
export function triesOf({ tries }: Transient, isMirror: boolean): number {
  return isMirror ? Math.min(tries, MIRROR_TRIES) : tries;
}

/** Whether all tries failed because the host is unavailable: this transfer does not ask such a mirror again. */
export function isUnavailable(error: unknown): boolean {
  return hasCode(error, 'REGISTRY_FAILED') || hasCode(error, 'REGISTRY_BUSY');
}

/** Runs `attempt` again after each {@link Transient} failure, {@link MOST_TRIES} times at most. */
export async function withRetries<T>(
  task: Task,
  attempt: () => Promise<T>,
  {
    onBusy,
    isMirror = false,
  }: { readonly onBusy?: (() => void) | undefined; readonly isMirror?: boolean } = {},
): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Transient)) throw error;
      if (error.isBusy) onBusy?.();
      if (tries >= triesOf(error, isMirror)) throw error.error;
      await waitToRetry(task, error, tries);
    }
  }
}

export async function waitToRetry(
  task: Task,
  { isBusy, retryAfterMs }: Transient,
  tries: number,
): Promise<void> {
  const own = backOffMs(tries);
  // Some busy registries ask for 0 s, or for a date that is past.
  const ms = isBusy ? Math.max(own, retryAfterMs ?? 0) : (retryAfterMs ?? own);
  await pauseFor(task, Math.min(ms, LONGEST_PAUSE_MS));
}

/** `Retry-After`: seconds, or a date. */
export function retryAfterMs(value: string | undefined, now = Date.now()): number | undefined {
  if (value === undefined) return undefined;
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - now;
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined;
}
