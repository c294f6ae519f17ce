// What only the addon can tell of a host, for `microvm-rootfs doctor`.
import { readFile } from 'node:fs/promises';
import { failedWith } from '../system/errors.js';
import { native } from './native.js';

/** The path of the addon's binary that this process runs. Throws `ADDON_NOT_LOADED`, `UNSUPPORTED_PLATFORM`. */
export async function loadedBinary(): Promise<string> {
  native();
  const maps = await readFile('/proc/self/maps', 'utf8');
  return /\S*microvm[_-]rootfs\.node$/m.exec(maps)?.[0] ?? 'of unknown place';
}

/** Of how many pieces a file is on disk; undefined where the file system does not tell. */
export async function extentsOf(path: string): Promise<number | undefined> {
  const { source } = await native().openSource(path);
  try {
    return await native().extentCount(source);
  } catch (error) {
    if (failedWith(error, 'ENOTSUP') || failedWith(error, 'EOPNOTSUPP')) return undefined;
    throw error;
  } finally {
    native().dispose(source);
  }
}

/** Whether the file system of a file tells who has it open. */
export async function hasLeases(path: string): Promise<boolean> {
  return (await native().openElsewhere(path)) !== undefined;
}
