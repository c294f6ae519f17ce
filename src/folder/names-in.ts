// Lists a folder without holding the event loop: one can have a million names.
//
// Node's opendir() asks for the type of each entry, and where the file system does not tell it (FUSE, XFS without
// ftype, ext4 without filetype) looks at each on the event loop, and fails if one of them has just gone.
import { setImmediate as nextTurn } from 'node:timers/promises';
import { native } from '../addon/native.js';
import { failedWith } from '../system/errors.js';

// Well below a millisecond of work.
const NAMES_AT_ONCE = 1000;

// From <dirent.h>.
const DT_UNKNOWN = 0;
const DT_DIR = 4;

/** Those that are wanted, in no order. None if there is no folder. */
export function namesIn(path: string, isWanted: (name: string) => boolean = () => true): Promise<string[]> {
  return decodedNamesIn(path, 'utf8', isWanted);
}

/** The bytes of each name, as Latin-1. */
export function rawNamesIn(path: string): Promise<string[]> {
  return decodedNamesIn(path, 'latin1', () => true);
}

async function decodedNamesIn(
  path: string,
  encoding: 'utf8' | 'latin1',
  isWanted: (name: string) => boolean,
): Promise<string[]> {
  const names: string[] = [];
  const add = (name: string) => {
    if (isWanted(name)) names.push(name);
  };
  await visitNames(Buffer.from(path), encoding, add).catch((error) => {
    if (!failedWith(error, 'ENOENT')) throw error;
  });
  return names;
}

/**
 * Visits each name of a folder, in no order, and no more of them than `limit`. `mayBeFolder`: it is one, or the file
 * system does not say.
 */
export async function visitNames(
  path: Buffer,
  encoding: 'utf8' | 'latin1',
  visit: (name: string, mayBeFolder: boolean) => void,
  limit = Number.MAX_SAFE_INTEGER,
): Promise<void> {
  const entries = await native().listFolder(path, limit);
  for (let at = 0, visited = 0; at < entries.length; ) {
    const end = entries.indexOf(0, at + 1);
    const type = entries[at];
    visit(entries.toString(encoding, at + 1, end), type === DT_DIR || type === DT_UNKNOWN);
    at = end + 1;
    if (++visited % NAMES_AT_ONCE === 0) await nextTurn();
  }
}
