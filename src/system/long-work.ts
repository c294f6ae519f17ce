// Hashing and copying take seconds, and Node has four threads for all of `fs`, `dns`, `zlib` and us. So long work runs
// in slices, and only so many such jobs run at once: the others wait here, where an abort reaches them.
import { abortError } from './errors.js';
import type { Task } from './task.js';

/** Bytes in one slice: some 10 ms of work, so that an abort is noticed soon. */
export const SLICE_BYTES = 16 * 1024 * 1024;

const JOBS_AT_ONCE = 2;
let running = 0;
const waiting: (() => void)[] = [];

export interface Progress {
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

/** Runs `job` when it is its turn. Rejects with `ABORT_ERR` if it is aborted while it waits. */
export async function inTurn<T>(task: Task, job: () => Promise<T>): Promise<T> {
  task.checkAborted();
  if (running >= JOBS_AT_ONCE) await turn(task);
  else running++;
  try {
    return await job();
  } finally {
    const next = waiting.shift();
    if (next === undefined) running--;
    else next();
  }
}

/**
 * Runs `slice` until it has a result. Every slice waits for a turn of its own, so a job that takes days keeps no other
 * job waiting. Rejects with `ABORT_ERR` if it is aborted between two slices.
 */
export async function inSlices<T>(task: Task, slice: () => Promise<T | undefined>): Promise<T> {
  for (;;) {
    const result = await inTurn(task, slice);
    if (result !== undefined) return result;
  }
}

function turn({ what, signal }: Task): Promise<void> {
  return new Promise((resolve, reject) => {
    const start = () => {
      signal?.removeEventListener('abort', abort);
      resolve();
    };
    const abort = () => {
      waiting.splice(waiting.indexOf(start), 1);
      reject(abortError(what, signal as AbortSignal));
    };
    signal?.addEventListener('abort', abort, { once: true });
    waiting.push(start);
  });
}
