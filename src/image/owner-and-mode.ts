// Owner and mode of an image, as a jailed VMM needs them.
import { chmod, chown } from 'node:fs/promises';
import type { Owner } from '../system/arguments.js';

/** What is undefined stays as it is. */
export interface OwnerAndMode {
  readonly owner: Owner | undefined;
  readonly mode: number | undefined;
}

export function sameOwnerAndMode(a: OwnerAndMode, b: OwnerAndMode): boolean {
  return a.owner?.uid === b.owner?.uid && a.owner?.gid === b.owner?.gid && a.mode === b.mode;
}

/**
 * Of an image in staging, where its path is nobody else's. Done last: resize2fs need not be allowed to open what the VMM may only read.
 */
export async function setOwnerAndMode(path: string, { owner, mode }: OwnerAndMode): Promise<void> {
  if (owner !== undefined) await chown(path, owner.uid, owner.gid);
  if (mode !== undefined) await chmod(path, mode);
}
