// Tells subscribers what the library does, on tracing channels of node:diagnostics_channel:
// `microvm-rootfs:<operation>`.

import { tracingChannel } from 'node:diagnostics_channel';
import { Pause } from './pause.js';
import type { Strategy } from './strategy.js';

/** Each operation has a tracing channel, `microvm-rootfs:<operation>`. */
export const OPERATIONS = [
  'clone',
  'fork',
  'grow',
  'hash',
  'pack',
  'publish',
  'pull',
  'push',
  'release',
  'restore',
  'seal',
  'snapshot',
  'export',
] as const;
export type Operation = (typeof OPERATIONS)[number];

/** What subscribers receive. The fields of the result are set from `asyncEnd` on (`end` for `cloneForVmSync`). */
export interface OperationEvent {
  readonly operation: Operation;
  /** The sanitised id. */
  readonly vmId?: string | undefined;
  readonly stack?: string | undefined;
  /** The file or folder of the operation. */
  readonly path?: string | undefined;
  /** What is hashed, and why, in the words of an error message. */
  readonly what?: string | undefined;
  durationMs?: number;
  strategy?: Strategy;
  /** The length of the image, or the number of bytes read. */
  bytes?: number;
  reused?: boolean;
  pooled?: boolean;
  error?: unknown;
}

type About = Pick<OperationEvent, 'operation' | 'vmId' | 'stack' | 'path' | 'what' | 'bytes'>;

type Channel = ReturnType<typeof tracingChannel<Operation, OperationEvent>>;

const channels = Object.fromEntries(
  OPERATIONS.map((operation) => [operation, tracingChannel(`microvm-rootfs:${operation}`)]),
) as unknown as Record<Operation, Channel>;

/** Runs `work` and tells subscribers. Without subscribers this costs two look-ups. */
export function traced<T>(about: About, work: () => Promise<T>): Promise<T> {
  const channel = channels[about.operation];
  if (!isWatched(channel)) return work();
  const event: OperationEvent = { ...about };
  return channel.tracePromise(async () => {
    const started = performance.now();
    try {
      return addResult(event, await work());
    } finally {
      event.durationMs = performance.now() - started;
    }
  }, event);
}

/** The same on the calling thread. */
export function tracedSync<T>(about: About, work: () => T): T {
  const channel = channels[about.operation];
  if (!isWatched(channel)) return work();
  const event: OperationEvent = { ...about };
  return channel.traceSync(() => {
    const started = performance.now();
    try {
      return addResult(event, work());
    } finally {
      event.durationMs = performance.now() - started;
    }
  }, event);
}

/**
 * The same for operations that share trips to another thread: they begin and end together, each with the time that all
 * of them took. `about` is called only if there are subscribers.
 */
export async function tracedMany<T>(
  operation: Operation,
  about: () => readonly About[],
  work: () => Promise<PromiseSettledResult<T>[]>,
): Promise<PromiseSettledResult<T>[]> {
  const channel = channels[operation];
  if (!isWatched(channel)) return work();
  const events: OperationEvent[] = about().map((each) => ({ ...each }));
  const pause = new Pause();
  for (const event of events) {
    channel.start.publish(event);
    channel.end.publish(event);
    if (pause.isDue) await pause.take();
  }
  const started = performance.now();
  const results = await work();
  const durationMs = performance.now() - started;
  for (const [i, event] of events.entries()) {
    if (pause.isDue) await pause.take();
    const result = results[i] as PromiseSettledResult<T>;
    event.durationMs = durationMs;
    if (result.status === 'fulfilled') addResult(event, result.value);
    else event.error = result.reason;
    if (result.status === 'rejected') channel.error.publish(event);
    channel.asyncStart.publish(event);
    channel.asyncEnd.publish(event);
  }
  return results;
}

// Channels of Node 20 have no `hasSubscribers` of their own.
function isWatched({ start, end, asyncStart, asyncEnd, error }: Channel): boolean {
  return (
    start.hasSubscribers ||
    end.hasSubscribers ||
    asyncStart.hasSubscribers ||
    asyncEnd.hasSubscribers ||
    error.hasSubscribers
  );
}

function addResult<T>(event: OperationEvent, result: T): T {
  if (typeof result === 'object' && result !== null) {
    const { strategy, sizeBytes, reused, pooled } = result as Partial<
      Record<'strategy' | 'sizeBytes' | 'reused' | 'pooled', never>
    >;
    if (strategy !== undefined) event.strategy = strategy;
    if (sizeBytes !== undefined) event.bytes = sizeBytes;
    if (reused !== undefined) event.reused = reused;
    if (pooled !== undefined) event.pooled = pooled;
  }
  return result;
}
