// One trip into the addon: what it is asked, and what its outcome means. The trip itself, in native/slot/clone_slot.cc:
// compare the template, take a ready slot or build one in staging (staged_slot.cc), publish it by a rename.

import {
  type CloneOutcome,
  type Created,
  type NativeClone,
  type NativePlan,
  native,
  RUNG,
} from '../addon/native.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import type { OpenFolder } from '../folder/open-folder.js';
import { QUICK_EXTENTS } from '../image/extents.js';
import { isSealedImage } from '../sealed/open-images.js';
import type { SystemError } from '../system/errors.js';
import type { PreparedClone } from './clone-plan.js';
import type { CloneSources, MissingStep } from './clone-sources.js';
import type { ExistingSlots } from './existing-slots.js';
import { readyStrategy } from './pool-files.js';
import { sharedInodeError, warnOfSharedInode } from './shared-inode.js';
import type { StagedClones } from './staged-clones.js';
import { builtRootfs, describeClone, type VmRootfs, vmRootfs } from './vm-rootfs.js';

type Made = 'reflinked' | 'pooled' | Created;

export class CloneTrips {
  readonly #folder: ManagedFolder;
  readonly #sources: CloneSources;
  readonly #existing: ExistingSlots;
  readonly #staged: StagedClones;

  constructor(folder: ManagedFolder, sources: CloneSources, existing: ExistingSlots, staged: StagedClones) {
    this.#folder = folder;
    this.#sources = sources;
    this.#existing = existing;
    this.#staged = staged;
  }

  async run({ handle }: OpenFolder, prepared: PreparedClone): Promise<CloneOutcome> {
    const addon = native();
    const clone = nativeClone(prepared, prepared.plan.handle);
    try {
      return prepared.growTo === undefined
        ? await addon.cloneSlot(handle, ...clone)
        : await addon.stageSlot(handle, ...clone);
    } catch (error) {
      this.#sources.giveBack(prepared);
      throw error;
    }
  }

  /** All in one trip, each with its outcome or its error. */
  async runMany(
    { handle }: OpenFolder,
    prepared: readonly PreparedClone[],
  ): Promise<(CloneOutcome | SystemError)[]> {
    if (prepared.length === 0) return [];
    try {
      return await native().cloneSlots(handle, prepared.map(toOneTrip));
    } catch (error) {
      for (const each of prepared) this.#sources.giveBack(each);
      throw error;
    }
  }

  /** On the calling thread. */
  runSync({ handle }: OpenFolder, prepared: PreparedClone): CloneOutcome {
    try {
      return native().cloneSlotSync(handle, ...toOneTrip(prepared));
    } catch (error) {
      this.#sources.giveBack(prepared);
      throw error;
    }
  }

  /** Does what is left to do after the trip. `again`: the slot was released or changed meanwhile. */
  async finish(
    folder: OpenFolder,
    prepared: PreparedClone,
    outcome: CloneOutcome,
  ): Promise<VmRootfs | MissingStep | 'again'> {
    if (isMade(outcome)) return this.made(prepared, outcome);
    if ('staged' in outcome) this.#sources.madeAnew(prepared);
    else this.#sources.giveBack(prepared);
    switch (outcome.status) {
      case 'staged':
      case 'copy-needed':
        return this.#staged.finish(folder, prepared, outcome);
      case 'exists': {
        const { request, template } = prepared;
        const what = describeClone(this.#folder, request);
        return this.#existing.reuse(what, folder, request, template, outcome.existing);
      }
      case 'template-changed':
        return 'template-changed';
      case 'source-changed':
        return this.#sources.sourceChanged(prepared);
      case 'shared-inode':
        throw sharedInodeError(prepared.request);
    }
  }

  /** The clone that the trip made. */
  made(prepared: PreparedClone, outcome: Made): VmRootfs {
    if (outcome !== 'pooled') this.#sources.madeAnew(prepared);
    if (outcome === 'reflinked' || outcome === 'pooled') return this.#madeInOneTrip(prepared, outcome);
    const { request, template } = prepared;
    if (outcome.sourceNow !== undefined) this.#sources.sourceSeen(prepared, outcome.sourceNow);
    if (outcome.strategy === 'hardlink') warnOfSharedInode(request, template);
    return builtRootfs(this.#folder, prepared, outcome);
  }

  #madeInOneTrip(prepared: PreparedClone, how: 'reflinked' | 'pooled'): VmRootfs {
    const { request, template, ready, attempts } = prepared;
    if (how === 'reflinked') this.#sources.cloned(prepared);
    return vmRootfs(this.#folder, request, template, {
      sizeBytes: request.sizeBytes ?? template.identity.sizeBytes,
      strategy: how === 'pooled' ? readyStrategy(ready ?? '') : 'reflink',
      reused: false,
      pooled: how === 'pooled',
      attempts,
    });
  }
}

export function isMade(outcome: CloneOutcome): outcome is Made {
  return typeof outcome === 'string' || outcome.status === 'created';
}

/** Whether the reflink may take milliseconds. A template that is not sealed may have any number of extents. */
export function takesLong({ reflinks }: OpenFolder, { cloneSource, ready }: PreparedClone): boolean {
  if (ready !== undefined) return false;
  return isSealedImage(cloneSource) ? (cloneSource.extents ?? 0) > QUICK_EXTENTS : reflinks === true;
}

/**
 * A clone that is published in the same trip. A clone that has to grow can only come from the pool. If its ready slot
 * is gone, the addon starts a copy instead, which this trip does not publish.
 */
function toOneTrip(prepared: PreparedClone): NativeClone {
  const { plan, growTo } = prepared;
  if (growTo === undefined) return nativeClone(prepared, plan.handle);
  return nativeClone(prepared, native().newPlan({ ...plan.slotPlan, rungs: RUNG.copy }));
}

function nativeClone({ cloneSource, request, rawId, ready }: PreparedClone, plan: NativePlan): NativeClone {
  return [cloneSource.source, plan, request.vm.safe, rawId, ready];
}
