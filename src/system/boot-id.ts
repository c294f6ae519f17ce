import { readFileSync, statfsSync } from 'node:fs';

const PATH = '/proc/sys/kernel/random/boot_id';
const PROC_SUPER_MAGIC = 0x9fa0;

let known: string | undefined | null = null;

/**
 * Tells one boot of this machine from all others. Undefined where there is no /proc, and where a file is mounted over
 * the kernel's: systemd-nspawn and LXC give a container an id of its own, which changes with no boot.
 */
export function bootId(): string | undefined {
  if (known === null) {
    try {
      const isOfKernel = statfsSync(PATH).type === PROC_SUPER_MAGIC;
      known = isOfKernel ? parseBootId(readFileSync(PATH, 'ascii')) : undefined;
    } catch {
      known = undefined;
    }
  }
  return known;
}

/** The id in a file, in lower case, with or without a line's end; undefined if it holds something else. */
export function parseBootId(file: string | null | undefined): string | undefined {
  const id = file?.trim().toLowerCase();
  return id !== undefined && /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(id) ? id : undefined;
}
