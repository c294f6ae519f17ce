import { allOrNone } from '../system/all-or-none.js';
import { absolutePath, optionalFunction, optionalSignal, readOptions, show } from '../system/arguments.js';
import { invalidArgument } from '../system/errors.js';
import type { Progress } from '../system/long-work.js';
import { FILES_AT_ONCE, type HashOptions, hashFile } from './hash.js';

/**
 * The SHA-256 of many files, in the order of `paths`, several at a time. `onProgress` reports the sum of all files that
 * were started. After the first failure the others are abandoned.
 *
 * Rejects like {@link hashFile}.
 */
export async function hashFiles(paths: readonly string[], options: HashOptions = {}): Promise<string[]> {
  if (!Array.isArray(paths)) throw invalidArgument(`paths must be an array, got ${show(paths)}`);
  const items = [...paths.entries()].map(([i, path]) => absolutePath(`paths[${i}]`, path));
  const { onProgress, ...given } = readOptions('options', options, ['signal', 'onProgress']);
  optionalFunction('onProgress', onProgress);
  const signal = optionalSignal(`hashing ${items.length} files`, given.signal);
  const report = sumOf(onProgress);
  return allOrNone({
    items,
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
