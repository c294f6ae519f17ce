// Opens a template and checks its path and timestamps.
import { lstat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { sameFile } from '../addon/identity.js';
import { native, type OpenedSource } from '../addon/native.js';
import { msUntilDistinctTime } from '../image/file-times.js';
import { asRootfsError, failedWith, RootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';
import type { LocatedFile } from './digest-record.js';
import { templateChangedError } from './template.js';

// Each is lost to a process that replaces the template at the same moment.
const ROUNDS = 8;

// A template that changes more often than this is being written to.
const TIMESTAMP_ROUNDS = 3;

/** Undefined if there is none. Rejects with `TEMPLATE_INVALID`, `TEMPLATE_CHANGED`, or a system error code. */
export async function openTemplate(path: string, round = 1): Promise<OpenedSource | undefined> {
  const invalid = (why: string, cause?: unknown) =>
    new RootfsError('TEMPLATE_INVALID', `template ${path} ${why}`, { path, cause });
  try {
    const opened = await native().openSource(path);
    if (opened.info.identity.sizeBytes > 0) return opened;
    native().dispose(opened.source);
  } catch (error) {
    if (failedWith(error, 'ENOTDIR')) return undefined;
    if (failedWith(error, 'ENOENT')) {
      const there = await lstat(path).catch(() => undefined);
      if (there === undefined) return undefined;
      if (there.isSymbolicLink()) throw invalid('is a symbolic link to nothing; mend or remove it', error);
      if (round < ROUNDS) return openTemplate(path, round + 1);
      throw templateChangedError(path, 'keeps being replaced while it is opened');
    }
    if (failedWith(error, 'EINVAL'))
      throw invalid('is not a regular file; put the image itself there', error);
    if (failedWith(error, 'ELOOP', 'ENAMETOOLONG'))
      throw invalid('is a link that leads nowhere; remove it', error);
    throw asRootfsError(`opening template ${path}`, error);
  }
  // Its slots would look like torn ones.
  throw invalid('is empty; put the image itself there');
}

/**
 * Waits until any later write to the template gets a new timestamp, and returns the template's state then. Its times
 * do not show a write before that, so no digest may be computed from earlier reads.
 */
export async function waitForDistinctTime(
  task: Task,
  path: string,
  opened: OpenedSource,
): Promise<OpenedSource> {
  const { source, filesystem } = opened;
  let { info } = opened;
  for (let round = 0; round < TIMESTAMP_ROUNDS; round++) {
    const waitMs = msUntilDistinctTime(info.identity, filesystem);
    if (waitMs === 0) return { ...opened, info };
    await sleep(waitMs);
    task.checkAborted();
    ({ info } = await native().checkSource(source));
  }
  throw templateChangedError(path, 'keeps changing');
}

/** Whether the path of an open file names another file now, or none. */
export async function isReplaced({ path, identity }: LocatedFile): Promise<boolean> {
  const [now] = await native().identities([path]);
  return now === undefined || !sameFile(now, identity);
}
