// How often to try again what may pass, such as a registry that is busy, and how long to wait before that.
import { setTimeout as sleep } from 'node:timers/promises';
import { withController } from './on-abort.js';
import type { Task } from './task.js';

export const MOST_TRIES = 6;

/** The registry itself stands behind a mirror. */
export const MIRROR_TRIES = 2;

const FIRST_PAUSE_MS = 500;

/** Doubles with each try. Partly random, so that a thousand hosts do not come back at once. */
export function backOffMs(tries: number): number {
  return FIRST_PAUSE_MS * 2 ** (tries - 1) * (0.5 + Math.random() / 2);
}

/** Rejects with `ABORT_ERR` as soon as the caller ends the work. */
export async function pauseFor(task: Task, ms: number): Promise<void> {
  const pause = withController(task.signal, ({ signal }) => sleep(ms, undefined, { signal }));
  await pause.catch(() => task.checkAborted());
}
