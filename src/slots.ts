// Making slots, and handing out those that are there already.
import { join } from 'node:path';
import type { StackName } from './catalog.js';
import type { ParsedCloneOptions } from './clone-options.js';
import type { ClonesFolder } from './clones-folder.js';
import { copyImage } from './copy.js';
import { errnoName, RootfsError, rootfsError } from './errors.js';
import { type GrowPrograms, growImage, shrinkRefused } from './grow.js';
import { sameFile } from './identity.js';
import { checkAborted } from './long-work.js';
import {
  type NativeAttempt,
  type NativeStore,
  native,
  RUNG,
  type SlotPlan,
  type SlotState,
  type Staged,
  type Strategy,
} from './native.js';
import { replaceImage, settle } from './replace.js';
import { type AssessedSlot, assessSlot } from './slot-state.js';
import { CLONE_ROOTFS_FILE } from './stamps.js';
import { changed, type Template, type Templates } from './templates.js';
import type { VmId } from './vm-id.js';

/** A rung of the ladder that was tried and left. */
export interface Attempt {
  readonly strategy: Strategy;
  /** What it failed with, in Node's spelling (`ENOTSUP`, `EXDEV`, …); `SHORT` if the clone came out shorter than its source. */
  readonly code: string;
}

/** A VM's own root disk. */
export interface VmRootfs {
  /** The sanitised id: the name of the slot's folder. */
  readonly vmId: string;
  readonly stack: string;
  /** The image to give to the VM. */
  readonly path: string;
  /** The template's SHA-256 when the clone was made. */
  readonly sourceSha256: string;
  /** Length of the image. */
  readonly sizeBytes: number;
  /** How the clone was made. Of a slot that was there already: as far as the disk tells. */
  readonly strategy: Strategy;
  /** The image **is** the template, under another name: a guest that writes to it changes the template. */
  readonly sharesTemplateInode: boolean;
  /** The slot was there already. */
  readonly reused: boolean;
  /** Rungs that were left on the way down, in order; none for a slot that was there already. */
  readonly attempts: readonly Attempt[];
}

export interface CloneRequest extends ParsedCloneOptions {
  readonly vm: VmId;
  readonly stack: StackName;
  readonly templatePath: string;
}

// Each round is lost to another process that changed the template or the slot in the same instant.
const ROUNDS = 16;

export class Slots {
  readonly #folder: ClonesFolder;
  readonly #templates: Templates;
  readonly #programs: GrowPrograms;

  constructor(folder: ClonesFolder, templates: Templates, programs: GrowPrograms) {
    this.#folder = folder;
    this.#templates = templates;
    this.#programs = programs;
  }

  async clone(request: CloneRequest): Promise<VmRootfs> {
    const what = `cloning ${request.templatePath} to ${join(this.#folder.path, request.vm.safe, CLONE_ROOTFS_FILE)}`;
    try {
      let templateIsKnown = this.#templates.remembered(request.templatePath) !== undefined;
      for (let round = 0; round < ROUNDS; round++) {
        checkAborted(what, request.signal);
        if (!templateIsKnown) await this.#lookAtTemplate(request);
        const outcome = await this.#folder.use((store) => this.#attempt(what, store, request));
        if (typeof outcome === 'object') return outcome;
        templateIsKnown = outcome !== 'template-changed';
      }
    } catch (error) {
      throw rootfsError(what, error);
    }
    throw changed(request.templatePath, 'or the slot keeps changing under the clone');
  }

  async #lookAtTemplate({ stack, templatePath, signal }: CloneRequest): Promise<void> {
    const template = await this.#templates.look(templatePath, signal);
    if (template !== undefined) return;
    throw new RootfsError('STACK_NOT_FOUND', `there is no stack "${stack}": ${templatePath} does not exist`, {
      path: templatePath,
    });
  }

  async #attempt(
    what: string,
    store: NativeStore,
    request: CloneRequest,
  ): Promise<VmRootfs | 'template-changed' | 'again'> {
    // Nothing is awaited between here and the call into the addon, so the descriptor cannot be dropped in between.
    const remembered = this.#templates.remembered(request.templatePath);
    if (remembered === undefined) return 'template-changed';
    const { template, source } = remembered;
    const grow = this.#growsTo(request, template);
    const plan = planFor(request, template, grow === undefined);
    const outcome = await (grow === undefined
      ? native().cloneSlot(store, source, plan)
      : native().stageSlot(store, source, plan));
    switch (outcome.status) {
      case 'created':
        if (outcome.sourceNow !== undefined) this.#templates.update(template, outcome.sourceNow);
        if (outcome.strategy === 'hardlink') warnOfSharedInode(request, template);
        return this.#made(request, template, outcome.strategy, outcome.attempts, template.identity.sizeBytes);
      case 'staged':
      case 'copy-needed':
        return this.#finish(what, outcome, request, template, grow);
      case 'exists':
        return this.#reuse(what, store, request, template, outcome.existing);
      case 'source-changed':
        return 'template-changed';
      case 'shared-inode':
        throw sharedInode(request);
    }
  }

  /** The size to grow a new clone to; undefined if it stays as long as the template. */
  #growsTo(request: CloneRequest, template: Template): number | undefined {
    const target = request.sizeBytes;
    if (target === undefined) return undefined;
    if (target < template.identity.sizeBytes) {
      throw shrinkRefused(template.path, template.identity.sizeBytes, target);
    }
    return target > template.identity.sizeBytes ? target : undefined;
  }

  /** What does not fit into one trip: copies, grows, publishes. */
  async #finish(
    what: string,
    outcome: Staged,
    request: CloneRequest,
    template: Template,
    grow: number | undefined,
  ): Promise<VmRootfs | 'template-changed' | 'again'> {
    const { staged } = outcome;
    try {
      if (outcome.status === 'copy-needed') await copyImage(what, staged, request.signal);
      if (grow !== undefined) await growImage(outcome.imagePath, grow, this.#programs, request.signal);
      checkAborted(what, request.signal);
      const sizeBytes = grow ?? template.identity.sizeBytes;
      const published = await native().publishSlot(staged, sizeBytes, grow?.toString());
      if (published === 'exists') return 'again';
      if (published === 'source-changed') return 'template-changed';
      return this.#made(request, template, outcome.strategy, outcome.attempts, sizeBytes);
    } finally {
      await native().discardSlot(staged);
    }
  }

  async #reuse(
    what: string,
    store: NativeStore,
    request: CloneRequest,
    template: Template,
    state: SlotState,
  ): Promise<VmRootfs | 'again'> {
    if (state.kind === 'absent') return 'again';
    const slot = assessSlot(join(this.#folder.path, request.vm.safe), request, template, state);
    if (slot === 'settle') {
      await settle(store, request.vm.safe, request.signal);
      return 'again';
    }
    const shared = sameFile(slot.image.identity, template.identity);
    const grow = growsFrom(request, slot);
    if (grow !== undefined || (shared && request.writable === true)) {
      const target = grow ?? slot.image.identity.sizeBytes;
      const strategy = await replaceImage(what, store, {
        ...request,
        slot: request.vm.safe,
        shared,
        targetBytes: target,
        sizeStamp: grow?.toString(),
        programs: this.#programs,
      });
      return strategy === 'again' ? 'again' : this.#existing(request, template, target, strategy, false);
    }
    if (shared && (request.owner !== undefined || request.mode !== undefined)) throw sharedInode(request);
    await dress(store, request, slot);
    const strategy = shared ? 'hardlink' : state.sharesExtents ? 'reflink' : 'copy';
    return this.#existing(request, template, slot.image.identity.sizeBytes, strategy, shared);
  }

  #made(
    request: CloneRequest,
    template: Template,
    strategy: Strategy,
    attempts: readonly NativeAttempt[],
    sizeBytes: number,
  ): VmRootfs {
    return {
      ...this.#existing(request, template, sizeBytes, strategy, strategy === 'hardlink'),
      reused: false,
      attempts: attempts.map(({ strategy, errno }) => ({
        strategy,
        code: errno === 0 ? 'SHORT' : errnoName(errno),
      })),
    };
  }

  #existing(
    request: CloneRequest,
    template: Template,
    sizeBytes: number,
    strategy: Strategy,
    sharesTemplateInode: boolean,
  ): VmRootfs {
    return {
      vmId: request.vm.safe,
      stack: request.stack,
      path: join(this.#folder.path, request.vm.safe, CLONE_ROOTFS_FILE),
      sourceSha256: template.sha256,
      sizeBytes,
      strategy,
      sharesTemplateInode,
      reused: true,
      attempts: [],
    };
  }
}

function planFor(request: CloneRequest, template: Template, mayShareInode: boolean): SlotPlan {
  const { vm, owner, mode, durable, writable } = request;
  const hardlink = mayShareInode && writable !== true ? RUNG.hardlink : 0;
  return {
    slot: vm.safe,
    stamp: template.sha256,
    rawId: vm.raw === vm.safe ? undefined : vm.raw,
    expected: template.identity,
    rungs: RUNG.reflink | hardlink | RUNG.copy,
    owner,
    mode,
    durable,
  };
}

/** The size to grow an existing clone to; undefined if it is as it should be. */
function growsFrom(request: CloneRequest, slot: AssessedSlot): number | undefined {
  const target = request.sizeBytes;
  if (target === undefined || slot.sizeStamp !== undefined || target === slot.templateBytes) return undefined;
  return target;
}

/** Gives an existing clone the owner and mode that were asked for. */
async function dress(store: NativeStore, request: CloneRequest, slot: AssessedSlot): Promise<void> {
  const { owner, mode } = request;
  const { image } = slot;
  const hasOwner = owner === undefined || (owner.uid === image.uid && owner.gid === image.gid);
  if (hasOwner && (mode === undefined || mode === image.mode)) return;
  await native().dressSlot(store, request.vm.safe, image.identity, { owner, mode });
}

function sharedInode(request: CloneRequest): RootfsError {
  return new RootfsError(
    'SHARED_INODE',
    `the clone for VM "${request.vm.raw}" would be a hardlink of ${request.templatePath}, and owner or mode would change the ` +
      'template with it: pass writable: true for a clone of its own, or leave owner and mode out',
    { path: request.templatePath },
  );
}

// One flag for all copies of this library in the process.
const WARNED = Symbol.for('microvm-rootfs.warned-of-shared-inode');

function warnOfSharedInode(request: CloneRequest, template: Template): void {
  const flags = globalThis as { [WARNED]?: boolean };
  if (request.writable === false || flags[WARNED]) return;
  flags[WARNED] = true;
  process.emitWarning(
    `the file system of the clones cannot reflink, so clones are hardlinks of their template (${template.path}): a guest that writes to ` +
      'its root changes the template. Pass writable: true for copies, or writable: false if all guests mount their root read-only',
    { type: 'RootfsWarning', code: 'MICROVM_ROOTFS_SHARED_INODE' },
  );
}
