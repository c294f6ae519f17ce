// A template's file: what is known of its bytes, and how to tell whether they are still the same.

import { setTimeout as sleep } from 'node:timers/promises';
import { type Identity, sameContents, sameState } from '../addon/identity.js';
import { native, type OpenedSource } from '../addon/native.js';
import { msUntilDistinctTime } from '../image/file-times.js';
import { hashSource } from '../image/hash.js';
import { hasCode, RootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';

export interface Template {
  readonly path: string;
  readonly sha256: string;
  /** As it was when its bytes had the digest. */
  readonly identity: Identity;
}

/**
 * Whether a template is unchanged. A writer can set mtime back, but not ctime. Links change ctime as well, and clones
 * may be links where reflinks are not possible: the addon keeps account of those of this process, and tells the ctime
 * of before (native/system/own_links.h). For those of other processes see {@link LinkedDigests}.
 */
export function sameTemplate(before: Identity, now: Identity): boolean {
  return sameState(before, now) && before.ctimeNs === now.ctimeNs;
}

/**
 * The same while it is read. Where clones may be links, other processes make and remove some all the time, and a digest
 * would never be had. There a writer who puts mtime back and makes a link in those seconds is not noticed.
 */
export function sameWhileRead(before: Identity, now: Identity, filesystem: string): boolean {
  return tellsEveryChange(filesystem) ? sameTemplate(before, now) : sameState(before, now);
}

/** Local file systems on which clones are no links: whatever is written changes ctime, and nothing else does. */
export function tellsEveryChange(filesystem: string): boolean {
  return filesystem.startsWith('xfs:') || filesystem.startsWith('btrfs:');
}

/**
 * Whether the path names something else now, or nothing. (A new file can have the inode number of a removed one.)
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
  const waitMs = msUntilDistinctTime(info.identity, filesystem);
  if (waitMs > 0) await sleep(waitMs);
  const result = await work().catch((error: unknown) => {
    throw hasCode(error, 'SOURCE_CHANGED') ? refusal(path, 'changed while it was read') : error;
  });
  const after = await native().checkSource(source);
  if (!sameWhileRead(info.identity, after.info.identity, filesystem))
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
