// A template's file: what is known of its bytes, and how it is told whether they are still the same.

import { setTimeout as sleep } from 'node:timers/promises';
import { type Identity, sameContents, sameState } from '../addon/identity.js';
import { native, type OpenedSource } from '../addon/native.js';
import { msUntilTimesTell } from '../image/file-times.js';
import { hashSource } from '../image/hash.js';
import { hasCode, RootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';

export interface Template {
  readonly path: string;
  readonly sha256: string;
  /** As it was last seen. */
  readonly identity: Identity;
  /** As it was when its bytes had the digest: see {@link isProven}. */
  readonly hashed: Identity;
}

/**
 * Whether a template is unchanged. A writer can set mtime back, but not ctime. Creating links also changes ctime, and
 * clones may be links where reflinks are not possible. So ctime counts only while the file has one link.
 */
export function sameTemplate(before: Identity, now: Identity, filesystem: string): boolean {
  if (!sameState(before, now)) return false;
  const linked = !filesystem.startsWith('xfs:') && !filesystem.startsWith('btrfs:');
  return linked || before.ctimeNs === now.ctimeNs;
}

/**
 * Whether the digest is certainly that of the present bytes. Otherwise hardlinks have changed ctime since, or somebody
 * who wrote to the template, put mtime back and made a link.
 */
export function isProven({ identity, hashed }: Template): boolean {
  return sameState(identity, hashed) && identity.ctimeNs === hashed.ctimeNs;
}

/**
 * Whether the path names something else by now, or nothing. (A new file can have the inode number of a removed one.)
 */
export async function isOutdated({ path, identity }: Template): Promise<boolean> {
  const [now] = await native().identities([path]);
  return now === undefined || !sameContents(now, identity);
}

export function hashUnchanged(task: Task, path: string, opened: OpenedSource): Promise<string> {
  const { source, info } = opened;
  return unchanged(path, opened, () => hashSource(task, source, info.identity.sizeBytes));
}

/** Runs work whose result is valid only if nobody writes to the template or image meanwhile. */
export async function unchanged<T>(
  path: string,
  opened: OpenedSource,
  work: () => Promise<T>,
  refusal = templateChangedError,
): Promise<T> {
  const { source, info, filesystem } = opened;
  if (opened.openForWriting) throw refusal(path, 'is open for writing in some process');
  const waitMs = msUntilTimesTell(info.identity, filesystem);
  if (waitMs > 0) await sleep(waitMs);
  const result = await work().catch((error: unknown) => {
    throw hasCode(error, 'SOURCE_CHANGED') ? refusal(path, 'changed while it was read') : error;
  });
  const after = await native().checkSource(source);
  if (!sameTemplate(info.identity, after.info.identity, filesystem))
    throw refusal(path, 'changed while it was read');
  if (after.openForWriting) throw refusal(path, 'was opened for writing while it was read');
  return result;
}

export function templateChangedError(path: string, how: string): RootfsError {
  return new RootfsError(
    'TEMPLATE_CHANGED',
    `template ${path} ${how}; write templates elsewhere and rename them into place when they are complete`,
    { path },
  );
}
