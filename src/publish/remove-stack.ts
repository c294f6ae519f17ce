// Removes a stack from the catalog.

import { lstat, rm, rmdir, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { sameContents } from '../addon/identity.js';
import { native } from '../addon/native.js';
import { refuseOtherSpelling } from '../catalog/catalog.js';
import { imageConfigsIn } from '../catalog/image-config.js';
import type { StackName } from '../catalog/stack-name.js';
import type { StacksByDigest } from '../catalog/stacks-by-digest.js';
import type { Template } from '../catalog/template.js';
import type { Templates } from '../catalog/templates.js';
import { withLock } from '../folder/folder-lock.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { namesIn } from '../folder/names-in.js';
import { listSlots } from '../slot/slot-list.js';
import { asRootfsError, failedWith, isGone, isSystemError, isTaken, RootfsError } from '../system/errors.js';
import { flush } from '../system/flush.js';
import { isMissing } from '../system/is-missing.js';
import { Task } from '../system/task.js';
import { INCOMING, noStackFolder } from './place-stack.js';

// More would fill the screen.
const IDS_SHOWN = 5;

interface RemoveRequest {
  readonly name: StackName;
  readonly templatePath: string;
  readonly force: boolean;
  readonly signal: AbortSignal | undefined;
}

/** False if there is none. Other files in the stack's folder stay, and then the folder stays too. */
export async function removeStack(
  catalog: ManagedFolder,
  clones: ManagedFolder,
  names: StacksByDigest,
  templates: Templates,
  { name, templatePath, force, signal }: RemoveRequest,
): Promise<boolean> {
  const task = new Task(`removing stack ${name}`, signal);
  try {
    await refuseOtherSpelling(templatePath);
    const folder = dirname(templatePath);
    // Create nothing for a stack that does not exist.
    if ((await isMissing(folder)) || ((await isMissing(templatePath)) && !(await isLeft(catalog, folder)))) {
      await flushRemoval(folder);
      return false;
    }
    // A full disk is what makes people remove stacks.
    const removed = await catalog.use(
      ({ handle }) =>
        withLock(task, handle, name, async () => {
          // Listed while the image keeps the folder: once that is empty, another publisher can put its own in its place
          // without the lock, with configs that are not ours to remove. A temporary file is made under the lock only.
          const others = [...(await imageConfigsIn(folder)), INCOMING];
          // Looked for after the wait: what was cloned meanwhile counts.
          const template = force ? undefined : await templates.look(templatePath, signal);
          if (template !== undefined) await refuseInUse(task, clones, names, name, template);
          const isThere = force || template !== undefined;
          const removed = isThere && (await removeImage(templatePath, template));
          if (!removed && !(await isMissing(templatePath))) return false;
          // Looking again makes this RootfsRegistry forget it and what was made from it. FUSE does not remove a folder
          // while a file in it is open.
          await templates.look(templatePath, undefined).catch(() => undefined);
          await flushRemoval(folder);
          for (const name of others) await rm(join(folder, name), { force: true });
          await removeFolder(folder);
          return removed;
        }),
      'no-staging',
    );
    return removed === true;
  } catch (error) {
    // A link is not followed to be locked.
    if (failedWith(error, 'ENOTDIR')) throw noStackFolder(dirname(templatePath), error);
    throw asRootfsError(task.what, error);
  }
}

async function refuseInUse(
  task: Task,
  clones: ManagedFolder,
  names: StacksByDigest,
  name: StackName,
  { path, sha256 }: Template,
): Promise<void> {
  const ids: string[] = [];
  let failure: unknown;
  try {
    for await (const { rawId, stack, sourceSha256 } of listSlots(clones, names, task.signal)) {
      if (sourceSha256 === sha256 && (stack === name || stack === undefined)) ids.push(rawId);
    }
  } catch (error) {
    task.checkAborted();
    failure = error;
  }
  if (ids.length === 0 && failure !== undefined) throw useNotKnown(task, failure);
  if (ids.length === 0) return;
  const some = ids.slice(0, IDS_SHOWN).map((id) => JSON.stringify(id));
  const more = ids.length > IDS_SHOWN ? `, and ${ids.length - IDS_SHOWN} more` : '';
  throw new RootfsError(
    'STACK_IN_USE',
    `${task.what}: ${ids.length === 1 ? 'there is a clone' : `there are ${ids.length} clones`} of it ` +
      `(${some.join(', ')}${more}): release ${ids.length === 1 ? 'it' : 'them'} first, or give force: true`,
    { path },
  );
}

function useNotKnown(task: Task, failure: unknown): unknown {
  if (!(failure instanceof RootfsError)) return failure;
  const { code, message, errno, syscall, path } = failure;
  const why = `${task.what}: cannot tell whether it has clones; force: true removes it anyway`;
  return new RootfsError(code, `${why}: ${message}`, { errno, syscall, path, cause: failure });
}

/** Uses a single system call, so the stack either exists or does not. */
async function removeImage(templatePath: string, template: Template | undefined): Promise<boolean> {
  if (template !== undefined) {
    const [now] = await native().identities([templatePath]);
    if (now === undefined) return false;
    if (!sameContents(now, template.identity)) {
      throw new RootfsError(
        'TEMPLATE_CHANGED',
        `template ${templatePath} was replaced meanwhile and was not removed: call again to remove ` +
          'the new image',
        { path: templatePath },
      );
    }
  }
  try {
    await unlink(templatePath);
  } catch (error) {
    if (failedWith(error, 'ENOENT')) return false;
    throw error;
  }
  return true;
}

/** Whether there is what a call that was cut off left: an empty folder, or files of ours beside no image. */
async function isLeft(catalog: ManagedFolder, folder: string): Promise<boolean> {
  if (await isMissing(catalog.statePath)) return false;
  // Another call may remove it just now.
  const found = await lstat(folder).catch((error) => {
    if (!isGone(error)) throw error;
  });
  if (!found?.isDirectory()) return false;
  const names = await namesIn(folder);
  return names.length === 0 || names.includes(INCOMING) || (await imageConfigsIn(folder)).length > 0;
}

/** Flushes the folder, or the one above it if it was removed: also for an earlier call that failed to. */
async function flushRemoval(folder: string): Promise<void> {
  try {
    await flush((await isMissing(folder)) ? dirname(folder) : folder);
  } catch (error) {
    if (failedWith(error, 'ENOENT')) return;
    throw isSystemError(error) ? Object.assign(error, { changeMade: true }) : error;
  }
}

/** Keeps the folder if it is a mount point or holds other files, such as the next image of another process. */
async function removeFolder(folder: string): Promise<void> {
  try {
    await rmdir(folder);
  } catch (error) {
    if (isTaken(error) || failedWith(error, 'EBUSY')) return;
    if (!failedWith(error, 'ENOENT')) throw error;
  }
  await flushRemoval(folder);
}
