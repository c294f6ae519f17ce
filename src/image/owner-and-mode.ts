// The owner and mode of an image, for a jailed VMM.
import { chmod, chown } from 'node:fs/promises';
import type { Owner } from '../system/arguments.js';

/** An undefined part stays as it is. */
export interface OwnerAndMode {
  readonly owner: Owner | undefined;
  readonly mode: number | undefined;
}

export function sameOwnerAndMode(a: OwnerAndMode, b: OwnerAndMode): boolean {
  return a.owner?.uid === b.owner?.uid && a.owner?.gid === b.owner?.gid && a.mode === b.mode;
}

/**
 * Changes an image in staging, where its path belongs to this process. Done last, because resize2fs may not be allowed
 * to open an image that only the VMM may read; the owner after the mode, which only a file's owner may change.
 */
export async function setOwnerAndMode(path: string, { owner, mode }: OwnerAndMode): Promise<void> {
  if (mode !== undefined) await chmod(path, mode);
  if (owner !== undefined) await chown(path, owner.uid, owner.gid);
}
