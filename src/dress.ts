// Owner and mode of an image in staging, where its path is nobody else's. Given last: resize2fs need not be allowed to open what the VMM may
// only read.
import { chmod, chown } from 'node:fs/promises';
import type { Owner } from './arguments.js';

export async function dressImage(
  path: string,
  { owner, mode }: { readonly owner: Owner | undefined; readonly mode: number | undefined },
): Promise<void> {
  if (owner !== undefined) await chown(path, owner.uid, owner.gid);
  if (mode !== undefined) await chmod(path, mode);
}
