// Tells a program that is at work from one that waits for ever: the folder that it writes to grows.

import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { finished, type Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';

const LOOKS = 30;

/**
 * False as soon as nothing in the folder has grown for so long, true when the program has ended. `stdout` is its
 * output, which is dropped.
 */
export async function growsUntilEnd(stdout: Readable, folder: string, silenceMs: number): Promise<boolean> {
  const ended = new Promise<true>((resolve) => finished(stdout.resume(), () => resolve(true)));
  let bytes = 0;
  let lastMs = performance.now();
  while (performance.now() - lastMs < silenceMs) {
    // It does not keep this process alive: the program does.
    if (await Promise.race([ended, sleep(silenceMs / LOOKS, false, { ref: false })])) return true;
    const now = await bytesIn(folder);
    if (now !== bytes) lastMs = performance.now();
    bytes = now;
  }
  return false;
}

async function bytesIn(folder: string): Promise<number> {
  const names = await readdir(folder, { recursive: true });
  const sizes = names.map((name) =>
    stat(join(folder, name)).then(
      ({ size }) => size,
      // It was renamed or removed meanwhile.
      () => 0,
    ),
  );
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}
