// Paths as the kernel tells them of mounts and loop devices.
import { realpathSync } from 'node:fs';
import { resolve } from 'node:path';
import { absolutePath } from '../system/arguments.js';

/** An absolute path without stray slashes and `..`, which only the kernel can follow behind a symbolic link. */
export function mountPath(path: string): string {
  const absolute = absolutePath('path', path);
  const [climbing, rest = ''] = splitBehind(absolute);
  if (climbing === '') return resolve(absolute);
  try {
    return resolve(realpathSync.native(climbing), rest);
  } catch {
    // Opening it reports that it is missing.
    return absolute;
  }
}

/** The path up to its last `..`, and what follows. */
function splitBehind(path: string): [string, string] {
  const [, climbing = '', rest = ''] = /^(.*\/\.\.(?=\/|$))\/*(.*)$/s.exec(path) ?? [];
  return [climbing, rest];
}
