import {
  optionalFunction,
  optionalSignal,
  requireKnownKeys,
  requirePath,
  show,
} from '../system/arguments.js';
import { eitherSignal } from '../system/either-signal.js';
import { RootfsError } from '../system/errors.js';
import type { Progress } from '../system/long-work.js';
import { type HashOptions, hashFile } from './hash.js';

/**
 * The SHA-256 of many files, in the order of `paths`, several at a time. `onProgress` reports the sum of all files that
 * were started. After the first failure the others are abandoned.
 *
 * Rejects like {@link hashFile}.
 */
export async function hashFiles(paths: readonly string[], options: HashOptions = {}): Promise<string[]> {
  if (!Array.isArray(paths))
    throw new RootfsError('INVALID_ARGUMENT', `paths must be an array, got ${show(paths)}`);
  for (const [i, path] of paths.entries()) requirePath(`paths[${i}]`, path);
  requireKnownKeys('options', options, ['signal', 'onProgress']);
  optionalFunction('onProgress', options.onProgress);
  const signal = optionalSignal(`hashing ${paths.length} files`, options.signal);
  return allOrNone(signal, (either) => {
    const report = sumOf(paths.length, options.onProgress);
    return paths.map((path, i) => hashFile(path, { signal: either, onProgress: (done) => report(i, done) }));
  });
}

/** Settles when all have settled. After the first failure it aborts the others, and rejects with that failure. */
export async function allOrNone<T>(
  signal: AbortSignal | undefined,
  start: (either: AbortSignal) => readonly Promise<T>[],
): Promise<T[]> {
  const failure = new AbortController();
  const either = eitherSignal(failure.signal, signal);
  let first: { readonly error: unknown } | undefined;
  const jobs = start(either).map((job) =>
    job.catch((error: unknown) => {
      first ??= { error };
      failure.abort(error);
      return undefined as never;
    }),
  );
  const results = await Promise.all(jobs);
  if (first !== undefined) throw first.error;
  return results;
}

/** Adds up the progress of several jobs. */
export function sumOf(
  count: number,
  onProgress: ((progress: Progress) => void) | undefined,
): (index: number, progress: Progress) => void {
  const parts: Progress[] = Array.from({ length: count }, () => ({ bytesDone: 0, bytesTotal: 0 }));
  return (index, progress) => {
    parts[index] = progress;
    const sum = { bytesDone: 0, bytesTotal: 0 };
    for (const { bytesDone, bytesTotal } of parts) {
      sum.bytesDone += bytesDone;
      sum.bytesTotal += bytesTotal;
    }
    onProgress?.(sum);
  };
}
