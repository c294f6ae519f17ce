// Tries again after a pause that doubles, or a longer one that the registry asks for, with fewer requests at once.
import { backOffMs, MIRROR_TRIES, MOST_TRIES, pauseFor } from '../system/back-off.js';
import { hasCode, type RootfsError } from '../system/errors.js';
import { withController } from '../system/on-abort.js';
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
export async function persist<T>(
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
      await pause(task, error, tries);
    }
  }
}

/** Waits before the next try. */
export async function pause(task: Task, { isBusy, retryAfterMs }: Transient, tries: number): Promise<void> {
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

/**
 * How many requests a transfer makes at once. Halved when the registry is too busy; then one more each time that as
 * many have succeeded.
 */
export class Pace {
  readonly #most: number;
  #limit: number;
  #requests = 0;
  #jobs = 0;
  /** Requests from before the last halving that have yet to answer: they would be turned away as well. */
  #sameBurst = 0;
  #succeeded = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(concurrency: number) {
    this.#most = concurrency;
    this.#limit = concurrency;
  }

  readonly slowDown = (): void => {
    if (this.#sameBurst-- > 0) return;
    this.#sameBurst = Math.max(this.#requests, this.#jobs) - 1;
    this.#succeeded = 0;
    this.#limit = Math.max(1, Math.floor(this.#limit / 2));
  };

  #speedUp(): void {
    this.#sameBurst--;
    if (++this.#succeeded < this.#limit || this.#limit >= this.#most) return;
    this.#succeeded = 0;
    this.#limit++;
    this.#waiting.shift()?.();
  }

  /** Makes a request when it is its turn. */
  async request<T>(make: () => Promise<T>): Promise<T> {
    while (this.#requests >= this.#limit) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#requests++;
    try {
      return await make();
    } finally {
      this.#requests--;
      this.#waiting.shift()?.();
    }
  }

  /**
   * Runs jobs in order, a number of them at once, and no more than `atMost`. The first failure aborts the others, and
   * is what it rejects with.
   */
  async forEach<T>(
    task: Task,
    items: Iterable<T>,
    work: (task: Task, item: T) => Promise<void>,
    atMost = Number.POSITIVE_INFINITY,
  ): Promise<void> {
    await withController(task.signal, async (own) => {
      const either = task.endedBy(own.signal);
      const running = new Set<Promise<void>>();
      let failed: { readonly error: unknown } | undefined;
      const fail = (error: unknown) => {
        failed ??= { error };
        own.abort(error);
      };
      try {
        for (const item of items) {
          while (running.size >= Math.max(1, Math.min(this.#limit, atMost))) await Promise.race(running);
          if (failed !== undefined || task.signal?.aborted) break;
          const job: Promise<void> = work(either, item)
            .then(() => this.#speedUp(), fail)
            .finally(() => {
              this.#jobs--;
              running.delete(job);
            });
          this.#jobs++;
          running.add(job);
        }
      } catch (error) {
        // The list itself failed.
        fail(error);
      }
      await Promise.all(running);
      task.checkAborted();
      if (failed !== undefined) throw failed.error;
    });
  }
}
