import { readFileSync } from 'node:fs';

let known: string | undefined | null = null;

/** Tells one boot of this machine from all others. Undefined where there is no /proc. */
export function bootId(): string | undefined {
  if (known === null) {
    try {
      known = readFileSync('/proc/sys/kernel/random/boot_id', 'ascii').trim() || undefined;
    } catch {
      known = undefined;
    }
  }
  return known;
}
