// Metrics for operators, through OpenTelemetry's API. Only its types are needed here: the caller brings the meter.
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { Attributes, Meter } from '@opentelemetry/api';
import { RootfsError } from './system/errors.js';
import { OPERATIONS, type OperationEvent } from './system/events.js';

// In seconds: a clone takes tens of microseconds, hashing an image minutes.
const BOUNDARIES = [
  0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5,
  5, 10, 30, 60, 300,
];

/**
 * Measures what every registry in this thread does, until you call the function that it returns:
 *
 * - `microvm_rootfs.operation.duration` is a histogram in seconds. Its attributes are `operation`, `outcome` (`ok` or
 *   `error`), `strategy` for clones and the like, and `code` for errors. Its count is the number of operations.
 * - `microvm_rootfs.operation.size` counts bytes: the lengths of images cloned, grown or sealed, and the bytes hashed.
 *
 * @example
 * import { metrics } from '@opentelemetry/api';
 * const stop = instrument(metrics.getMeter('my-scheduler'));
 */
export function instrument(meter: Meter): () => void {
  const duration = meter.createHistogram('microvm_rootfs.operation.duration', {
    description: 'How long operations of microvm-rootfs took',
    unit: 's',
    advice: { explicitBucketBoundaries: BOUNDARIES },
  });
  const size = meter.createCounter('microvm_rootfs.operation.size', {
    description: 'Lengths of the images that operations were about, and bytes hashed',
    unit: 'By',
  });
  const record = (message: unknown) => {
    const event = message as OperationEvent;
    // This is the end of the call that started an asynchronous operation, not of the operation itself.
    if (event.durationMs === undefined) return;
    const attributes = attributesOf(event);
    duration.record(event.durationMs / 1000, attributes);
    if (event.bytes !== undefined && event.error === undefined) size.add(event.bytes, attributes);
  };
  const names = OPERATIONS.flatMap((operation) =>
    ['asyncEnd', 'end'].map((moment) => `tracing:microvm-rootfs:${operation}:${moment}`),
  );
  for (const name of names) subscribe(name, record);
  return () => {
    for (const name of names) unsubscribe(name, record);
  };
}

function attributesOf({ operation, strategy, pooled, error }: OperationEvent): Attributes {
  if (error === undefined) {
    return {
      operation,
      outcome: 'ok',
      ...(strategy === undefined ? {} : { strategy }),
      ...(pooled === undefined ? {} : { pooled }),
    };
  }
  return { operation, outcome: 'error', code: error instanceof RootfsError ? error.code : 'UNKNOWN' };
}
