// Finds the programs that make, check, grow and unpack images.

import { access, constants, stat } from 'node:fs/promises';
import { delimiter, resolve } from 'node:path';

// Distributions put e2fsprogs here, and a plain user's PATH lacks these folders.
const SYSTEM_FOLDERS = ['/usr/sbin', '/sbin', '/usr/local/sbin'];

// What env -i starts has none.
const USUAL_PATH = '/usr/local/bin:/usr/bin:/bin';

/** The path of a program. A name without a slash is looked up on PATH and in the folders of system programs. */
export async function findProgram(name: string): Promise<string | undefined> {
  if (name.includes('/')) return (await isExecutable(name)) ? name : undefined;
  const folders = (process.env.PATH || USUAL_PATH).split(delimiter).filter((folder) => folder !== '');
  for (const folder of [...folders, ...SYSTEM_FOLDERS]) {
    // PATH may have relative folders, and the program may start in another one.
    const path = resolve(folder, name);
    if (await isExecutable(path)) return path;
  }
  return undefined;
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}
