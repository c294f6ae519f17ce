import { allOrNone } from '../system/all-or-none.js';
import {
  optionalFunction,
  optionalSignal,
  requireKnownKeys,
  requirePath,
  show,
} from '../system/arguments.js';
import { RootfsError } from '../system/errors.js';
import type { Progress } from '../system/long-work.js';
import { FILES_AT_ONCE, type HashOptions, hashFile } from './hash.js';

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
  const report = sumOf(options.onProgress);
  return allOrNone({
    items: paths,
    atOnce: FILES_AT_ONCE,
    signal,
    work: (path, either) => hashFile(path, { signal: either, onProgress: report() }),
  });
}

/** Adds up the progress of several jobs: each gets a callback of its own. */
export function sumOf(
  onProgress: ((progress: Progress) => void) | undefined,
): () => (progress: Progress) => void {
  let [bytesDone, bytesTotal] = [0, 0];
  return () => {
    let before: Progress = { bytesDone: 0, bytesTotal: 0 };
    return (now) => {
      bytesDone += now.bytesDone - before.bytesDone;
      bytesTotal += now.bytesTotal - before.bytesTotal;
      before = now;
      onProgress?.({ bytesDone, bytesTotal });
    };
  };
}
