// Hands out an existing slot, as it is or changed as requested.

import { type NativeFolder, native, type SlotState } from '../addon/native.js';
import type { Template } from '../catalog/template.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import type { OpenFolder } from '../folder/open-folder.js';
import type { GrowPrograms } from '../image/grow.js';
import { finishCutOffGrow, replaceImage } from '../slot/replace.js';
import { knownSharer, type Sharer, type Sharers } from '../slot/shared-image.js';
import { otherLinksError } from '../slot/slot-errors.js';
import { type AssessedSlot, assessSlot, hasOtherLinks, strategyOf } from '../slot/slot-state.js';
import { openUnleased } from '../slot/slot-use.js';
import { imagePath } from '../slot/stamps.js';
import { Task } from '../system/task.js';
import type { CloneRequest } from './clone-plan.js';
import { sharedInodeError } from './shared-inode.js';
import { type VmRootfs, vmRootfs } from './vm-rootfs.js';

/** A slot that is there, and what was asked for. */
interface FoundSlot {
  readonly request: CloneRequest;
  readonly template: Template;
  readonly slot: AssessedSlot;
  readonly sharer: Sharer;
}

export class ExistingSlots {
  readonly #folder: ManagedFolder;
  readonly #sharers: Sharers;
  readonly #programs: GrowPrograms;

  constructor(folder: ManagedFolder, sharers: Sharers, programs: GrowPrograms) {
    this.#folder = folder;
    this.#sharers = sharers;
    this.#programs = programs;
  }

  /** The slot, if it can be handed out as it is, without a wait; undefined if not. Throws what is wrong with it. */
  asItIs(request: CloneRequest, template: Template, state: SlotState): VmRootfs | undefined {
    if (state.kind === 'absent' || request.durable) return undefined;
    const slot = this.#assess(request, template, state);
    if (slot === 'grow-cut-off') return undefined;
    const sharer = knownSharer(slot.state, template.identity);
    if (sharer === undefined || replaces(request, slot, sharer) || !isDressed(request, slot, sharer))
      return undefined;
    return this.#asItIs({ request, template, slot, sharer });
  }

  /**
   * Makes the slot what was asked for. `again`: it was released or changed meanwhile, and has to be looked at again.
   */
  async reuse(
    what: string,
    { handle }: OpenFolder,
    request: CloneRequest,
    template: Template,
    state: SlotState,
  ): Promise<VmRootfs | 'again'> {
    if (state.kind === 'absent') return 'again';
    const slot = this.#assess(request, template, state);
    const { vm, owner, mode, durable, signal } = request;
    if (slot === 'grow-cut-off') {
      await finishCutOffGrow(handle, vm.safe, signal);
      return 'again';
    }
    const task = new Task(what, signal);
    const sharer = await this.#sharers.find(task, vm.safe, slot.state, template.identity);
    const found = { request, template, slot, sharer };
    if (replaces(request, slot, sharer)) return this.#replace(task, handle, found);
    const { folder, image } = slot.state;
    const path = imagePath(this.#folder, vm);
    if (!isDressed(request, slot, sharer)) {
      const isSet = await openUnleased(path, () =>
        native().setSlotOwnerAndMode(handle, vm.safe, folder, image.identity, { owner, mode }),
      );
      if (!isSet) return 'again';
    }
    // Its maker may not have flushed it.
    if (durable && !(await openUnleased(path, () => native().flushSlot(handle, vm.safe, folder))))
      return 'again';
    return this.#asItIs(found);
  }

  async #replace(
    task: Task,
    handle: NativeFolder,
    { request, template, slot, sharer }: FoundSlot,
  ): Promise<VmRootfs | 'again'> {
    const { vm, owner, mode, durable } = request;
    const grow = growsFrom(request, slot);
    const targetBytes = grow ?? slot.image.identity.sizeBytes;
    const strategy = await replaceImage(task, handle, {
      slot: vm.safe,
      imagePath: imagePath(this.#folder, vm),
      decidedOn: slot.state,
      sharer,
      targetBytes,
      sizeStamp: grow?.toString(),
      owner,
      mode,
      durable,
      programs: this.#programs,
    });
    // Only the new image was flushed. The next look finds a slot that is as it was asked for, and flushes the rest.
    if (strategy === 'again' || durable) return 'again';
    return vmRootfs(this.#folder, request, template, { sizeBytes: targetBytes, strategy, reused: true });
  }

  #assess(request: CloneRequest, template: Template, state: SlotState): AssessedSlot | 'grow-cut-off' {
    return assessSlot(`${this.#folder.path}/${request.vm.safe}`, request, template, state);
  }

  #asItIs({ request, template, slot, sharer }: FoundSlot): VmRootfs {
    // Whoever copied it may have been killed before the flush.
    if (slot.state.unsettled !== undefined) this.#folder.flushInBackground(request.vm.safe);
    const strategy = strategyOf(slot.state, sharer !== 'nobody');
    const { sizeBytes } = slot.image.identity;
    return vmRootfs(this.#folder, request, template, { sizeBytes, strategy, reused: true });
  }
}

/** Whether the slot needs another image. */
function replaces(request: CloneRequest, slot: AssessedSlot, sharer: Sharer): boolean {
  return growsFrom(request, slot) !== undefined || (sharer !== 'nobody' && request.writable === true);
}

/**
 * Whether the image has the owner and the mode that were asked for. Throws `SHARED_INODE` if other names of it would
 * get them too.
 */
function isDressed(request: CloneRequest, { image, state }: AssessedSlot, sharer: Sharer): boolean {
  const { owner, mode } = request;
  if (sharer !== 'nobody' && (owner !== undefined || mode !== undefined)) throw sharedInodeError(request);
  const hasOwner = owner === undefined || (owner.uid === image.uid && owner.gid === image.gid);
  const isSet = hasOwner && (mode === undefined || mode === image.mode);
  if (!isSet && hasOtherLinks(state)) throw otherLinksError(request.vm, image.identity.links);
  return isSet;
}

/** The size to grow an existing clone to; undefined if it is as it should be. */
function growsFrom(request: CloneRequest, slot: AssessedSlot): number | undefined {
  const target = request.sizeBytes;
  return slot.sizeStamp !== undefined || target === slot.templateBytes ? undefined : target;
}
