// Facts about a host that only the addon can tell, for `microvm-rootfs doctor`.
import { readFile } from 'node:fs/promises';
import { native } from './native.js';

export { libc } from './load-addon.js';

/**
 * The path of the addon's binary in this process, or words that say why it is unknown. Throws `ADDON_NOT_LOADED`,
 * `UNSUPPORTED_PLATFORM`.
 */
export async function loadedBinary(): Promise<string> {
  native();
  const maps = await readFile('/proc/self/maps', 'utf8').catch(() => undefined);
  if (maps === undefined) return 'loaded; /proc/self/maps, which names its file, cannot be read';
  return binaryIn(maps) ?? 'of unknown place';
}

/** The path may hold spaces. Before it stand the addresses, the permissions, the offset, the device and the inode. */
export function binaryIn(maps: string): string | undefined {
  return /^(?:\S+\s+){5}(\/.*microvm[_-]rootfs\.node)$/m.exec(maps)?.[1];
}

/** Whether this process can have a lease on a file, which tells whether it is open. */
export async function canLease(path: string): Promise<boolean> {
  return (await native().openElsewhere(path, false)) !== undefined;
}
