// Handing out a slot that is there already: as it is, or changed to what was asked for.

import { type Identity, sameFile } from '../addon/identity.js';
import { native, type SlotState } from '../addon/native.js';
import type { Template } from '../catalog/templates.js';
import type { ManagedFolder, OpenFolder } from '../folder/managed-folder.js';
import type { GrowPrograms } from '../image/grow.js';
import { finishCutOffGrow, replaceImage } from '../slot/replace.js';
import { type AssessedSlot, assessSlot, hasForeignNames, strategyOf } from '../slot/slot-state.js';
import { imagePath } from '../slot/stamps.js';
import { Task } from '../system/task.js';
import type { CloneRequest } from './clone-plan.js';
import { sharedInodeError } from './shared-inode.js';
import { type VmRootfs, vmRootfs } from './vm-rootfs.js';

export class ExistingSlots {
  readonly #folder: ManagedFolder;
  readonly #programs: GrowPrograms;

  constructor(folder: ManagedFolder, programs: GrowPrograms) {
    this.#folder = folder;
    this.#programs = programs;
  }

  /** The slot, if it needs nothing done; undefined if it does. Throws what is wrong with it. */
  asItIs(request: CloneRequest, template: Template, state: SlotState): VmRootfs | undefined {
    if (state.kind === 'absent' || request.durable) return undefined;
    const slot = this.#assess(request, template, state);
    if (slot === 'grow-cut-off' || !isAsAsked(request, template, slot, state)) return undefined;
    return this.#found(request, template, slot, state);
  }

  /** Does what is to be done. `again`: the slot was released, or changed, in the same instant. */
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
    const shared = sharesInode(state, slot.image.identity, template.identity);
    const grow = growsFrom(request, slot);
    if (grow !== undefined || (shared && request.writable === true)) {
      const targetBytes = grow ?? slot.image.identity.sizeBytes;
      const strategy = await replaceImage(new Task(what, signal), handle, {
        slot: vm.safe,
        imagePath: imagePath(this.#folder, vm),
        shared,
        targetBytes,
        sizeStamp: grow?.toString(),
        owner,
        mode,
        durable,
        programs: this.#programs,
      });
      if (strategy === 'again') return 'again';
      // The image alone was: whoever made the slot need not have flushed the rest.
      if (durable) await native().flushSlot(handle, vm.safe);
      return vmRootfs(this.#folder, request, template, { sizeBytes: targetBytes, strategy, reused: true });
    }
    if (!isAsAsked(request, template, slot, state)) {
      await native().setSlotOwnerAndMode(handle, vm.safe, slot.image.identity, { owner, mode });
    }
    // Whoever made it need not have flushed it.
    if (durable) await native().flushSlot(handle, vm.safe);
    return this.#found(request, template, slot, state);
  }

  #assess(request: CloneRequest, template: Template, state: SlotState): AssessedSlot | 'grow-cut-off' {
    return assessSlot(`${this.#folder.path}/${request.vm.safe}`, request, template, state);
  }

  #found(request: CloneRequest, template: Template, { image }: AssessedSlot, state: SlotState): VmRootfs {
    const strategy = strategyOf(state, sharesInode(state, image.identity, template.identity));
    const { sizeBytes } = image.identity;
    return vmRootfs(this.#folder, request, template, { sizeBytes, strategy, reused: true });
  }
}

/** Whether an existing slot is all that was asked for. Throws `SHARED_INODE`. */
function isAsAsked(request: CloneRequest, template: Template, slot: AssessedSlot, state: SlotState): boolean {
  const { owner, mode, writable } = request;
  const { image } = slot;
  const shared = sharesInode(state, image.identity, template.identity);
  if (growsFrom(request, slot) !== undefined || (shared && writable === true)) return false;
  if (shared && (owner !== undefined || mode !== undefined)) throw sharedInodeError(request);
  const hasOwner = owner === undefined || (owner.uid === image.uid && owner.gid === image.gid);
  return hasOwner && (mode === undefined || mode === image.mode);
}

/**
 * Whether a clone's file is also another's: the template's; or, with several names, that of a template which was replaced since, or of
 * another stack with the same bytes.
 */
function sharesInode(state: SlotState, image: Identity, template: Identity): boolean {
  return sameFile(image, template) || hasForeignNames(state);
}

/** The size to grow an existing clone to; undefined if it is as it should be. */
function growsFrom(request: CloneRequest, slot: AssessedSlot): number | undefined {
  const target = request.sizeBytes;
  return slot.sizeStamp !== undefined || target === slot.templateBytes ? undefined : target;
}
