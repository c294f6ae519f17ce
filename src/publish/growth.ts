// Tells a program that is at work from one that waits for ever, or that writes for ever: the folder that it writes to
// grows, and not too far.

import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { finished, type Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { isGone } from '../system/errors.js';

/** A fast disk takes some GB in this time. */
const LOOK_MS = 1000;

/**
 * `silent` as soon as nothing in the folder has grown for so long, `too large` when it holds more than `maxBytes`,
 * `ended` when the program has ended. `stdout` is its output, which is dropped.
 */
export async function growsUntilEnd(
  stdout: Readable,
  folder: string,
  silenceMs: number,
  maxBytes: number,
): Promise<'ended' | 'silent' | 'too large'> {
  const ended = new Promise<true>((resolve) => finished(stdout.resume(), () => resolve(true)));
  let bytes = 0;
  let lastMs = performance.now();
  while (performance.now() - lastMs < silenceMs) {
    // It does not keep this process alive: the program does.
    if (await Promise.race([ended, sleep(LOOK_MS, false, { ref: false })])) return 'ended';
    const now = await bytesIn(folder);
    if (now > maxBytes) return 'too large';
    if (now !== bytes) lastMs = performance.now();
    bytes = now;
  }
  return 'silent';
}

async function bytesIn(folder: string): Promise<number> {
  // A folder in it that goes meanwhile fails the listing. That is a change, too.
  const names = await readdir(folder, { recursive: true }).catch((error: unknown) => {
    if (!isGone(error)) throw error;
    return [];
  });
  const sizes = names.map((name) =>
    stat(join(folder, name)).then(
      ({ size }) => size,
      // It was renamed or removed meanwhile.
      () => 0,
    ),
  );
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}
