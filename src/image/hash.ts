import { setTimeout as sleep } from 'node:timers/promises';
import { sameState } from '../addon/identity.js';
import { type NativeSource, native, type OpenedSource } from '../addon/native.js';
import { absolutePath, optionalFunction, optionalSignal, readOptions } from '../system/arguments.js';
import { asRootfsError, failedWith, invalidArgument, RootfsError } from '../system/errors.js';
import { traced } from '../system/events.js';
import { inFlushTurn } from '../system/flush.js';
import { inSlices, type Progress, SLICE_BYTES } from '../system/long-work.js';
import { Task } from '../system/task.js';
import { requireAtMost, TurnsBySize } from '../system/turns-by-size.js';
import { msUntilDistinctTime } from './file-times.js';

export interface HashOptions {
  readonly signal?: AbortSignal;
  /** Called between slices of the work and once at the end. */
  readonly onProgress?: (progress: Progress) => void;
}

export const FILES_AT_ONCE = 64;

const turns = new TurnsBySize(FILES_AT_ONCE);

/**
 * The SHA-256 of a file of any size, as 64 lower-case hex digits. Reads in slices on another thread, with about 128 KiB
 * of memory.
 *
 * Rejects with the system's code if the file cannot be read (`ENOENT`, `EACCES`, `EIO`, …), `INVALID_ARGUMENT` if it
 * is not a regular file, `SOURCE_CHANGED` if it is written to meanwhile, `ABORT_ERR` if aborted.
 *
 * A file that a process has open for writing is flushed first: only then does the file system notice what is written
 * through a mapping (`mmap`). Such writes stay unnoticed on tmpfs, and on file systems without leases (see
 * `slotInUse`): there, hash only what nobody has mapped for writing.
 *
 * @example await hashFile('/srv/snapshots/vm-1/memory', { onProgress: ({ bytesDone }) => console.log(bytesDone) })
 */
export async function hashFile(path: string, options: HashOptions = {}): Promise<string> {
  const absolute = absolutePath('path', path);
  const { signal, onProgress } = readOptions('options', options, ['signal', 'onProgress']);
  const what = `hashing ${path}`;
  const task = new Task(what, optionalSignal(what, signal));
  optionalFunction('onProgress', onProgress);
  try {
    return await turns.run(task, 0, (limitBytes) => openAndHash(task, absolute, limitBytes, onProgress));
  } catch (error) {
    if (failedWith(error, 'EINVAL')) {
      throw invalidArgument(`${what}: it is not a regular file`, { path, cause: error });
    }
    throw asRootfsError(what, error);
  }
}

async function openAndHash(
  task: Task,
  path: string,
  limitBytes: number,
  onProgress: HashOptions['onProgress'],
): Promise<string> {
  const opened = await native().openSource(path);
  const { source, info } = opened;
  try {
    requireAtMost(limitBytes, info.identity.sizeBytes);
    if (opened.openForWriting) await waitForNewWriteTimes(path, opened);
    const sha256 = await hashSource(task, source, info.identity.sizeBytes, onProgress);
    const now = await native().checkSource(source);
    if (!sameState(info.identity, now.info.identity)) throw writtenToError(task.what);
    return sha256;
  } finally {
    native().dispose(source);
  }
}

/**
 * A write to a mapped page gives the file another time if the page is clean, and a flush makes it clean. Times of the
 * same tick are one, so it waits for the next.
 */
async function waitForNewWriteTimes(path: string, { source, info, filesystem }: OpenedSource): Promise<void> {
  await sleep(msUntilDistinctTime(info.identity, filesystem));
  await inFlushTurn(path, () => native().flushSource(source));
}

/**
 * The SHA-256 of an open file that was `bytesTotal` long when it was opened. Reads at most one byte beyond that, so a
 * file that grows without end does not keep it. Rejects with `SOURCE_CHANGED` if the length is another one.
 */
export function hashSource(
  task: Task,
  source: NativeSource,
  bytesTotal: number,
  onProgress?: (progress: Progress) => void,
): Promise<string> {
  return traced({ operation: 'hash', what: task.what, bytes: bytesTotal }, async () => {
    const digest = native().newDigest(source);
    let position = 0;
    try {
      return await inSlices(task, async () => {
        const budget = Math.min(SLICE_BYTES, bytesTotal + 1 - position);
        const { bytesDone, sha256 } = await native().digestStep(digest, budget);
        position = bytesDone;
        if (bytesDone > bytesTotal || (sha256 !== undefined && bytesDone < bytesTotal))
          throw writtenToError(task.what);
        onProgress?.({ bytesDone, bytesTotal });
        return sha256;
      });
    } finally {
      native().dispose(digest);
    }
  });
}

function writtenToError(what: string): RootfsError {
  return new RootfsError(
    'SOURCE_CHANGED',
    `${what}: the file changed while it was read, so its digest would be meaningless: stop whatever writes to it, ` +
      'and try again',
  );
}
