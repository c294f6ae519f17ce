// Hashing, copying and flushing take seconds, and Node has four threads for all of `fs`, `dns`, `zlib` and us. So does
// a reflink of a disk that its guest has written to: it is one system call, which flushes the disk first and then costs
// 10 µs for each extent. Only so many such jobs run at once, and what can be cut runs in slices.
import type { Task } from './task.js';
import { Turns } from './turns.js';

/** Bytes in one slice: some 10 ms of work, so that an abort is noticed soon. */
export const SLICE_BYTES = 16 * 1024 * 1024;

const turns = new Turns(2);

export interface Progress {
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

/** Runs `job` when it is its turn. Rejects with `ABORT_ERR` if it is aborted while it waits. */
export function inTurn<T>(task: Task, job: () => Promise<T>): Promise<T> {
  return turns.run(task, job);
}

/**
 * Runs `slice` until it has a result. Every slice waits for a turn of its own, so a job that takes days keeps no other
 * job waiting. Rejects with `ABORT_ERR` if it is aborted between two slices.
 */
export async function inSlices<T>(task: Task, slice: () => Promise<T | undefined>): Promise<T> {
  for (;;) {
    const result = await turns.run(task, slice, 'behind');
    if (result !== undefined) return result;
  }
}
