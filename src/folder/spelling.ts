// Folders where two names are one: that do not tell upper from lower case, or the Unicode forms of a letter (ext4 with
// `casefold`, SMB, virtiofs).
import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { namesIn } from './names-in.js';

/**
 * The name in `folder` that `name` leads to, if it is spelled in another way. Undefined if it is spelled the same, or
 * if `name` leads to nothing.
 */
export async function otherSpelling(folder: string, name: string): Promise<string | undefined> {
  const there = await inodeOf(join(folder, name));
  if (there === undefined || !(await foldsNames(folder, name, there))) return undefined;
  const entries = await namesIn(folder);
  if (entries.includes(name)) return undefined;
  for (const entry of entries) {
    if ((await inodeOf(join(folder, entry))) === there) return entry;
  }
  return undefined;
}

// A soft hyphen. Unicode's folding ignores it, so ext4 with `casefold` finds any name with it as well.
const IGNORED = '\u00ad';

/** Whether another spelling of the name leads to the same place. */
async function foldsNames(folder: string, name: string, there: string): Promise<boolean> {
  const inOtherCase = [name.toUpperCase(), name.toLowerCase()];
  const spellings = [...inOtherCase, name.normalize('NFC'), name.normalize('NFD'), name + IGNORED];
  for (const spelling of new Set(spellings)) {
    if (spelling !== name && (await inodeOf(join(folder, spelling))) === there) return true;
  }
  return false;
}

async function inodeOf(path: string): Promise<string | undefined> {
  try {
    const { dev, ino } = await lstat(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return undefined; // whoever uses the name finds out why
  }
}
