// Makes a new slot from the current contents of another.

import { sameContents } from '../addon/identity.js';
import { type FileInfo, native } from '../addon/native.js';
import type { StacksByDigest } from '../catalog/stacks-by-digest.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { reflinkInTurn } from '../image/extents.js';
import { dropOldest } from '../system/drop-oldest.js';
import { asRootfsError, failedWith, hasCode } from '../system/errors.js';
import { Task } from '../system/task.js';
import { type DerivedRootfs, newSlot, notFlushed, slotExistsError } from './new-slot.js';
import { type TemplateBytes, withSlotImage } from './slot-image.js';
import type { CopyOptions } from './slot-options.js';
import { imagePath, parseStamp } from './stamps.js';
import { rawIdToStore, type VmId } from './vm-id.js';

// Each round is lost to a process that changes the parent at the same moment.
const ROUNDS = 16;

interface Fork {
  readonly folder: ManagedFolder;
  readonly stacks: StacksByDigest;
  readonly templateBytes: TemplateBytes;
  readonly from: VmId;
  readonly vm: VmId;
  readonly refuseInUse: boolean;
  readonly options: CopyOptions;
}

export async function forkSlot(fork: Fork): Promise<DerivedRootfs> {
  const { folder, from, vm, refuseInUse, options } = fork;
  const task = new Task(`forking ${folder.path}/${from.safe} to ${folder.path}/${vm.safe}`, options.signal);
  try {
    task.checkAborted();
    // Do not open or create a folder for a slot that does not exist.
    if (!refuseInUse && folder.opened !== undefined) {
      const forked = await forkInOneTrip(task, fork).catch((error: unknown) => {
        // Another process has a lease on the image; opening it again waits a moment for it.
        if (failedWith(error, 'EAGAIN')) return undefined;
        throw error;
      });
      if (forked !== undefined) return forked;
    }
    return await forkUnwritten(task, fork);
  } catch (error) {
    throw asRootfsError(task.what, error);
  }
}

/**
 * An export, another owner or a grow by another process changes the parent's image or its ctime, but not what the guest
 * wrote: then the fork is made again of what is there now.
 */
async function forkUnwritten(
  task: Task,
  { folder, stacks, templateBytes, from, vm, refuseInUse, options }: Fork,
): Promise<DerivedRootfs> {
  const request = { refuseInUse, templateBytes, signal: options.signal };
  let written = false;
  for (let round = 1; ; round++) {
    try {
      return await withSlotImage(folder, from, request, async (image, open) => {
        const { identity, sourceSha256, sizeStamp, state } = image;
        const storedStack = state.stack || undefined;
        const stack = storedStack ?? (await stacks.firstWith(sourceSha256));
        const descent = { sourceSha256, sizeStamp, stack, storedStack };
        if (sizeStamp === undefined) rememberParent(folder, from, sourceSha256, identity.sizeBytes);
        try {
          const { slot } = await newSlot(task, open, { folder, from: image, vm, descent, options });
          return slot;
        } catch (error) {
          // Ask while it is open: a new image can have the inode number of a removed one.
          written = !sameContents(identity, (await native().checkSource(image.source)).info.identity);
          throw error;
        }
      });
    } catch (error) {
      if (written || round === ROUNDS || !hasCode(error, 'SOURCE_CHANGED')) throw error;
    }
  }
}

interface Parent {
  readonly sha256: string;
  readonly sizeBytes: number;
}

const PARENTS_LIMIT = 1024;

/** Slots that were forked and had the size of their template, by folder name: the next fork is one trip. */
const parents = new WeakMap<ManagedFolder, Map<string, Parent>>();

function rememberParent(folder: ManagedFolder, { safe }: VmId, sha256: string, sizeBytes: number): void {
  const known = parents.get(folder) ?? new Map<string, Parent>();
  parents.set(folder, known);
  known.set(safe, { sha256, sizeBytes });
  dropOldest(known, PARENTS_LIMIT);
}

/** Undefined, with nothing created, unless the parent is clearly complete and can be reflinked. */
async function forkInOneTrip(
  task: Task,
  { folder, stacks, from, vm, options }: Fork,
): Promise<DerivedRootfs | undefined> {
  const path = imagePath(folder, vm);
  const parent = parents.get(folder)?.get(from.safe);
  const [{ status, parent: now }, scattered] = await folder.use(({ handle }) =>
    reflinkInTurn(
      task,
      () =>
        native().forkSlot(handle, {
          from: from.safe,
          fromRawId: rawIdToStore(from),
          slot: vm.safe,
          rawId: rawIdToStore(vm),
          owner: options.owner,
          mode: options.mode,
          durable: options.durable,
          templateSha256: parent?.sha256,
          templateBytes: parent?.sizeBytes,
        }),
      ({ status }) => (status === 'created' ? path : undefined),
    ).catch(notFlushed(task)),
  );
  if (status === 'exists') throw await slotExistsError(task.what, folder, vm);
  if (status !== 'created') return undefined;
  const sourceSha256 = parseStamp(now.stamp) as string;
  return {
    vmId: vm.safe,
    stack: now.stack || (await stacks.firstWith(sourceSha256)),
    path,
    sourceSha256,
    sizeBytes: (now.image as FileInfo).identity.sizeBytes,
    strategy: 'reflink',
    attempts: [],
    ...scattered,
  };
}
