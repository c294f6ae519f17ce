// Making slots, and handing out those that are there already.
import { randomBytes } from 'node:crypto';
import { type CloneRequest, growsTo, type Origin, planFor, poolKey, type Warm } from './clone-plan.js';
import type { ClonesFolder, OpenFolder } from './clones-folder.js';
import { copyImage } from './copy.js';
import { dressImage } from './dress.js';
import { abortError, errnoName, isFull, isSystemError, RootfsError, rootfsError } from './errors.js';
import { type GrowPrograms, growImage } from './grow.js';
import { type Identity, sameFile } from './identity.js';
import { checkAborted } from './long-work.js';
import {
  type CloneOutcome,
  native,
  RUNG,
  type SlotPlan,
  type SlotState,
  type Staged,
  type Strategy,
} from './native.js';
import { type Pool, type PoolKey, readyName, readyStrategy } from './pool.js';
import { replaceImage, settle } from './replace.js';
import type { SealedImages } from './sealed-images.js';
import { sharedInode, warnOfSharedInode } from './shared-inode.js';
import { type AssessedSlot, assessSlot } from './slot-state.js';
import { CLONE_ROOTFS_FILE } from './stamps.js';
import { changed, type DigestOf, hashUnchanged, type Template, type Templates } from './templates.js';
import type { VmId } from './vm-id.js';
import type { Attempt, VmRootfs } from './vm-rootfs.js';

// Each round is lost to another process that changed the template or the slot in the same instant.
const ROUNDS = 16;

// Requests in one trip of a batch: some milliseconds of work.
const BATCH = 64;

type Again = 'template-changed' | 'again';

export class Slots {
  readonly #folder: ClonesFolder;
  readonly #templates: Templates;
  readonly #sealed: SealedImages | undefined;
  readonly #pool: Pool;
  readonly #programs: GrowPrograms;

  constructor(
    folder: ClonesFolder,
    templates: Templates,
    sealed: SealedImages | undefined,
    pool: Pool,
    programs: GrowPrograms,
  ) {
    this.#folder = folder;
    this.#templates = templates;
    this.#sealed = sealed;
    this.#pool = pool;
    this.#programs = programs;
  }

  async clone(request: CloneRequest): Promise<VmRootfs> {
    try {
      let look = this.#templates.remembered(request.templatePath) === undefined;
      let sealFailure: Attempt | undefined;
      for (let round = 0; round < ROUNDS; round++) {
        if (request.signal?.aborted) throw abortError(this.#what(request), request.signal);
        if (look) await this.#look(request);
        const outcome = await this.#folder.use(async (folder) => {
          const warm = this.#warm(folder, request, { sealFailure });
          if (typeof warm === 'string') return warm;
          return this.#follow(folder, warm, await this.#launch(folder, warm));
        });
        if (typeof outcome === 'object') return outcome;
        look = outcome === 'template-changed';
        if (outcome === 'unsealed') {
          const done = await this.#reuseOrSeal(request);
          if (done !== undefined && 'vmId' in done) return done;
          sealFailure = done;
        }
      }
    } catch (error) {
      throw rootfsError(this.#what(request), error);
    }
    throw new RootfsError(
      'SLOT_BUSY',
      `${this.#what(request)}: other processes keep changing the slot or the template in the same instant; try again`,
      { path: this.#slotPath(request.vm) },
    );
  }

  /** On the calling thread; throws `NOT_WARM` where that would take more than the one trip. */
  cloneSync(request: CloneRequest): VmRootfs {
    const folder = this.#folder.opened;
    if (folder === undefined) throw this.#notWarm(request, 'the clones folder is not open yet');
    try {
      const warm = this.#warm(folder, request);
      if (warm === 'template-changed')
        throw this.#notWarm(request, 'the digest of the template is not known');
      if (typeof warm === 'string') throw this.#notWarm(request, 'the template is not sealed');
      const outcome = this.#launchSync(folder, warm);
      this.#returnReady(warm, outcome);
      if (outcome.status === 'created') return this.#created(warm, outcome);
      if (outcome.status === 'shared-inode') throw sharedInode(request);
      if (outcome.status === 'exists') {
        const slot = this.#assess(request, warm.template, outcome.existing);
        if (typeof slot === 'object' && !request.durable && this.#asItIs(request, warm.template, slot)) {
          return this.#found(request, warm.template, slot, outcome.existing);
        }
        throw this.#notWarm(request, 'the slot is there, but is to be changed');
      }
      if ('staged' in outcome) {
        native().dispose(outcome.staged);
        throw this.#notWarm(request, 'it would have to be copied or grown');
      }
      throw this.#notWarm(request, 'the template has changed');
    } catch (error) {
      if (this.#folder.isStale(error)) throw this.#notWarm(request, 'the clones folder was replaced');
      throw rootfsError(this.#what(request), error);
    }
  }

  /** One settled result for each request, in order. Warm clones share trips. */
  async cloneMany(requests: readonly CloneRequest[]): Promise<PromiseSettledResult<VmRootfs>[]> {
    const batches: number[][] = [];
    for (let i = 0; i < requests.length; i += BATCH) {
      batches.push(Array.from({ length: Math.min(BATCH, requests.length - i) }, (_, k) => i + k));
    }
    const results = await Promise.all(
      batches.map((indexes) => this.#cloneBatch(indexes.map((i) => requests[i] as CloneRequest))),
    );
    return results.flat();
  }

  #cloneBatch(requests: readonly CloneRequest[]): Promise<PromiseSettledResult<VmRootfs>[]> {
    if (this.#folder.opened === undefined)
      return Promise.allSettled(requests.map((request) => this.clone(request)));
    return this.#folder.use((folder) => this.#cloneTogether(folder, requests));
  }

  async #cloneTogether(
    folder: OpenFolder,
    requests: readonly CloneRequest[],
  ): Promise<PromiseSettledResult<VmRootfs>[]> {
    const alone = requests.map((request) => () => this.clone(request));
    const warm: { index: number; warm: Warm }[] = [];
    requests.forEach((request, index) => {
      const plan = request.signal?.aborted ? 'again' : this.#tryWarm(folder, request);
      if (typeof plan === 'object' && (plan.growTo === undefined || plan.plan.ready !== undefined))
        warm.push({ index, warm: plan });
    });
    const outcomes = await native().cloneSlots(
      folder.store,
      warm.map(({ warm }) => [warm.origin.source, oneTrip(warm)]),
    );
    warm.forEach(({ index, warm }, i) => {
      const outcome = outcomes[i] as CloneOutcome | { errno: number };
      alone[index] = () => this.#settleOne(folder, warm, outcome);
    });
    return Promise.allSettled(alone.map((work) => work()));
  }

  async #settleOne(
    folder: OpenFolder,
    warm: Warm,
    outcome: CloneOutcome | { errno: number },
  ): Promise<VmRootfs> {
    try {
      if (isSystemError(outcome)) {
        this.#returnReady(warm);
        throw outcome;
      }
      const followed = await this.#follow(folder, warm, outcome as CloneOutcome);
      if (typeof followed === 'object') return followed;
    } catch (error) {
      if (!this.#folder.isStale(error)) throw rootfsError(this.#what(warm.request), error);
    }
    return this.clone(warm.request);
  }

  /** What a request that is wrong in itself throws is for its own promise to tell. */
  #tryWarm(folder: OpenFolder, request: CloneRequest): Warm | Again | 'unsealed' {
    try {
      return this.#warm(folder, request);
    } catch {
      return 'again';
    }
  }

  /** Makes a ready slot for the pool, and gives its name. Like a clone, but for nobody yet. */
  async makeReady(request: CloneRequest, key: PoolKey, prefix: string): Promise<string> {
    for (let round = 0; round < ROUNDS; round++) {
      const name = await this.#folder.use(async (folder) => {
        const warm = this.#warm(folder, request, { fromPool: false });
        return typeof warm === 'string' ? undefined : this.#publishReady(folder, warm, key, prefix);
      });
      if (name !== undefined) return name;
      await this.warmUp(request);
    }
    throw changed(request.templatePath, 'keeps changing');
  }

  async #publishReady(folder: OpenFolder, warm: Warm, key: PoolKey, prefix: string): Promise<string> {
    const { request, template, origin, growTo, plan } = warm;
    // Ready slots of other bytes, or another length, must not get this name.
    if (template.sha256 !== key.template.sha256) throw changed(template.path, 'changed');
    const outcome = await native().stageReplacement(folder.store, origin.source, plan);
    const { staged, strategy } = outcome;
    try {
      await this.#complete(warm, outcome, `making a ready slot of ${template.path}`, undefined);
      const name = readyName(prefix, strategy, randomBytes(8).toString('hex'));
      const sizeBytes = growTo ?? origin.identity.sizeBytes;
      const published = await native().publishSlot(staged, 'pool', name, sizeBytes, plan.companions);
      if (published !== 'created') throw changed(request.templatePath, 'changed');
      return name;
    } finally {
      await native().discardSlot(staged);
    }
  }

  /** Looks at the template, and where possible seals it, so that the next clone is one trip. */
  async warmUp(request: CloneRequest): Promise<Template> {
    const what = this.#what(request);
    try {
      await this.#look(request);
      const { template } = this.#templates.remembered(request.templatePath) ?? {};
      if (template === undefined) throw changed(request.templatePath, 'changed');
      growsTo(request, template);
      const sealed = this.#sealed;
      if (sealed !== undefined && (await this.#folder.use(async ({ reflinks }) => reflinks))) {
        await sealed.ensure(template, request.sizeBytes ?? template.identity.sizeBytes, request.signal);
      }
      return template;
    } catch (error) {
      throw rootfsError(what, error);
    }
  }

  #what({ templatePath, vm }: CloneRequest): string {
    return `cloning ${templatePath} to ${this.#imagePath(vm)}`;
  }

  #notWarm(request: CloneRequest, why: string): RootfsError {
    return new RootfsError(
      'NOT_WARM',
      `${this.#what(request)} on the calling thread: ${why}; call cloneForVm, or prewarm the stack first`,
    );
  }

  #slotPath(vm: VmId): string {
    return `${this.#folder.path}/${vm.safe}`;
  }

  #imagePath(vm: VmId): string {
    return `${this.#folder.path}/${vm.safe}/${CLONE_ROOTFS_FILE}`;
  }

  async #look(request: CloneRequest): Promise<void> {
    const { stack, templatePath, signal } = request;
    const template = await this.#templates.look(templatePath, signal, this.#digestOf(request));
    if (template === undefined) {
      throw new RootfsError(
        'STACK_NOT_FOUND',
        `there is no stack "${stack}": ${templatePath} does not exist`,
        {
          path: templatePath,
        },
      );
    }
  }

  /** Sealing a new template gives its digest on the way. A request that will be refused has nothing made for it. */
  #digestOf({ sizeBytes }: CloneRequest): DigestOf {
    const sealed = this.#sealed;
    return async (path, opened, signal) => {
      const refused = sizeBytes !== undefined && sizeBytes < opened.info.identity.sizeBytes;
      if (sealed !== undefined && !refused) {
        try {
          const reflinks = await this.#folder.use(async ({ reflinks }) => reflinks);
          if (reflinks) return await sealed.digestBySealing(path, opened, signal);
        } catch (error) {
          if (!isFull(error)) throw error;
        }
      }
      return hashUnchanged(path, opened, signal);
    };
  }

  /** Nothing is awaited between here and the call into the addon, so no descriptor can be dropped in between. */
  #warm(
    folder: OpenFolder,
    request: CloneRequest,
    {
      sealFailure,
      fromPool = !request.durable,
    }: { sealFailure?: Attempt | undefined; fromPool?: boolean } = {},
  ): Warm | Again | 'unsealed' {
    const remembered = this.#templates.remembered(request.templatePath);
    if (remembered === undefined) return 'template-changed';
    const { template } = remembered;
    const grown = growsTo(request, template);
    let origin: Origin = { source: remembered.source, identity: template.identity, sealed: false };
    if (this.#sealed !== undefined && folder.reflinks && sealFailure === undefined) {
      const image = this.#sealed.remembered(template.sha256, grown ?? template.identity.sizeBytes);
      if (image === undefined) return 'unsealed';
      origin = { source: image.source, identity: image.identity, sealed: true };
    }
    const ready = fromPool ? this.#pool.take(poolKey(request, template)) : undefined;
    return {
      request,
      template,
      origin,
      plan: planFor(request, template, origin, grown, ready),
      growTo: origin.sealed ? undefined : grown,
      attempts: sealFailure === undefined ? [] : [sealFailure],
    };
  }

  /** A slot that is there needs no sealed image. Else one is made, or the reason why not is returned. */
  async #reuseOrSeal(request: CloneRequest): Promise<VmRootfs | Attempt | undefined> {
    await this.#look(request);
    const remembered = this.#templates.remembered(request.templatePath);
    if (remembered === undefined) return undefined;
    const { template } = remembered;
    const existing = await this.#folder.use(async (folder) => {
      const state = await native().inspectSlot(folder.store, request.vm.safe);
      return state.kind === 'absent' ? undefined : this.#reuse(folder, request, template, state);
    });
    if (existing !== undefined) return existing === 'again' ? undefined : existing;
    try {
      await this.#sealed?.ensure(
        template,
        growsTo(request, template) ?? template.identity.sizeBytes,
        request.signal,
      );
      return undefined;
    } catch (error) {
      if (!isFull(error)) throw error;
      return { strategy: 'seal', code: errnoName(error.errno) };
    }
  }

  async #launch({ store }: OpenFolder, warm: Warm): Promise<CloneOutcome> {
    const { origin, plan, growTo } = warm;
    const addon = native();
    try {
      return growTo === undefined
        ? await addon.cloneSlot(store, origin.source, plan)
        : await addon.stageSlot(store, origin.source, plan);
    } catch (error) {
      this.#returnReady(warm);
      throw error;
    }
  }

  #launchSync({ store }: OpenFolder, warm: Warm): CloneOutcome {
    try {
      return native().cloneSlotSync(store, warm.origin.source, oneTrip(warm));
    } catch (error) {
      this.#returnReady(warm);
      throw error;
    }
  }

  async #follow(folder: OpenFolder, warm: Warm, outcome: CloneOutcome): Promise<VmRootfs | Again> {
    const { request, template } = warm;
    this.#returnReady(warm, outcome);
    switch (outcome.status) {
      case 'created':
        return this.#created(warm, outcome);
      case 'staged':
      case 'copy-needed':
        return this.#finish(folder, warm, outcome);
      case 'exists':
        return this.#reuse(folder, request, template, outcome.existing);
      case 'template-changed':
        return 'template-changed';
      case 'source-changed':
        return this.#sourceChanged(warm);
      case 'shared-inode':
        throw sharedInode(request);
    }
  }

  /** Somebody touched the sealed image, which is then made anew, or the template itself. */
  #sourceChanged({ origin, template }: Warm): Again {
    if (!origin.sealed) return 'template-changed';
    this.#sealed?.forget(template.sha256, origin.identity.sizeBytes);
    return 'again';
  }

  /** Without an outcome: the clone failed, and if the ready slot is gone with it, whoever takes the name next finds that out. */
  #returnReady({ plan, request, template }: Warm, outcome?: CloneOutcome): void {
    const taken = outcome !== undefined && (outcome.status === 'created' || 'staged' in outcome);
    if (plan.ready !== undefined && !taken) this.#pool.giveBack(poolKey(request, template), plan.ready);
  }

  #created(warm: Warm, outcome: CloneOutcome & { status: 'created' }): VmRootfs {
    const { request, template, origin } = warm;
    const { sourceNow, pooled } = outcome;
    if (sourceNow !== undefined && !origin.sealed) this.#templates.update(template, sourceNow);
    // The clone is right all the same, but the next one should not come from an image that has lost its name.
    if (sourceNow?.links === 0) this.#sealed?.forget(template.sha256, origin.identity.sizeBytes);
    const strategy = pooled ? readyStrategy(warm.plan.ready ?? '') : outcome.strategy;
    if (strategy === 'hardlink') warnOfSharedInode(request, template);
    const sizeBytes = request.sizeBytes ?? template.identity.sizeBytes;
    return { ...this.#made(warm, { ...outcome, strategy }, sizeBytes), pooled };
  }

  /** What does not fit into one trip: copies, grows, publishes. */
  async #finish(folder: OpenFolder, warm: Warm, outcome: Staged): Promise<VmRootfs | Again> {
    const { request, template, growTo, plan } = warm;
    const what = this.#what(request);
    const { staged } = outcome;
    try {
      await this.#complete(warm, outcome, what, request.signal);
      const sizeBytes = growTo ?? template.identity.sizeBytes;
      const published = await native().publishSlot(staged, 'slots', plan.slot, sizeBytes, plan.companions);
      if (published === 'exists') {
        // Another caller was faster. Looked at at once: another round would copy it all again.
        const state = await native().inspectSlot(folder.store, plan.slot);
        return await this.#reuse(folder, request, template, state);
      }
      if (published === 'source-changed') return this.#sourceChanged(warm);
      return this.#made(warm, outcome, sizeBytes);
    } finally {
      await native().discardSlot(staged);
    }
  }

  /** What a staged image still lacks. */
  async #complete(
    { request, growTo }: Warm,
    { status, staged, imagePath }: Staged,
    what: string,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (status === 'copy-needed') await copyImage(what, staged, signal);
    if (growTo !== undefined) {
      await growImage(imagePath, growTo, this.#programs, signal);
      await dressImage(imagePath, request);
    }
    checkAborted(what, signal);
  }

  #assess(request: CloneRequest, template: Template, state: SlotState): AssessedSlot | 'settle' | 'again' {
    return state.kind === 'absent'
      ? 'again'
      : assessSlot(this.#slotPath(request.vm), request, template, state);
  }

  async #reuse(
    { store }: OpenFolder,
    request: CloneRequest,
    template: Template,
    state: SlotState,
  ): Promise<VmRootfs | 'again'> {
    const slot = this.#assess(request, template, state);
    if (slot === 'again') return 'again';
    if (slot === 'settle') {
      await settle(store, request.vm.safe, request.signal);
      return 'again';
    }
    const shared = sharesInode(slot.image.identity, template.identity);
    const grow = growsFrom(request, slot);
    if (grow !== undefined || (shared && request.writable === true)) {
      const targetBytes = grow ?? slot.image.identity.sizeBytes;
      const strategy = await replaceImage(this.#what(request), store, {
        ...request,
        slot: request.vm.safe,
        imagePath: this.#imagePath(request.vm),
        shared,
        targetBytes,
        sizeStamp: grow?.toString(),
        programs: this.#programs,
      });
      return strategy === 'again' ? 'again' : this.#existing(request, template, targetBytes, strategy, false);
    }
    if (!this.#asItIs(request, template, slot)) {
      const { owner, mode } = request;
      await native().dressSlot(store, request.vm.safe, slot.image.identity, { owner, mode });
    }
    // Whoever made it need not have flushed it.
    if (request.durable) await native().flushSlot(store, request.vm.safe);
    return this.#found(request, template, slot, state);
  }

  /** Whether an existing slot is all that was asked for. Throws `SHARED_INODE`. */
  #asItIs(request: CloneRequest, template: Template, slot: AssessedSlot): boolean {
    const { owner, mode, writable } = request;
    const { image } = slot;
    const shared = sharesInode(image.identity, template.identity);
    if (growsFrom(request, slot) !== undefined || (shared && writable === true)) return false;
    if (shared && (owner !== undefined || mode !== undefined)) throw sharedInode(request);
    const hasOwner = owner === undefined || (owner.uid === image.uid && owner.gid === image.gid);
    return hasOwner && (mode === undefined || mode === image.mode);
  }

  #found(request: CloneRequest, template: Template, { image }: AssessedSlot, state: SlotState): VmRootfs {
    const shared = sharesInode(image.identity, template.identity);
    const strategy = shared ? 'hardlink' : state.sharesExtents ? 'reflink' : 'copy';
    return this.#existing(request, template, image.identity.sizeBytes, strategy, shared);
  }

  #made(warm: Warm, outcome: Pick<Staged, 'strategy' | 'attempts'>, sizeBytes: number): VmRootfs {
    const { strategy } = outcome;
    const attempts = outcome.attempts.map(({ strategy, errno }) => ({
      strategy,
      code: errno === 0 ? 'SHORT' : errnoName(errno),
    }));
    return {
      ...this.#existing(warm.request, warm.template, sizeBytes, strategy, strategy === 'hardlink'),
      reused: false,
      attempts: [...warm.attempts, ...attempts],
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
      path: this.#imagePath(request.vm),
      sourceSha256: template.sha256,
      sizeBytes,
      strategy,
      sharesTemplateInode,
      reused: true,
      pooled: false,
      attempts: [],
    };
  }
}

/**
 * Whether a clone's file is also another's: the template's; or, with several names, that of a template which was replaced since, or of
 * another stack with the same bytes.
 */
function sharesInode(image: Identity, template: Identity): boolean {
  return sameFile(image, template) || image.links > 1;
}

/**
 * The plan of a clone that is published in the same trip. One that has to be grown can only come from the pool: if its ready slot is gone,
 * a copy is begun, which is never published in that trip.
 */
function oneTrip({ plan, growTo }: Warm): SlotPlan {
  return growTo === undefined ? plan : { ...plan, rungs: RUNG.copy };
}

/** The size to grow an existing clone to; undefined if it is as it should be. */
function growsFrom(request: CloneRequest, slot: AssessedSlot): number | undefined {
  const target = request.sizeBytes;
  return slot.sizeStamp !== undefined || target === slot.templateBytes ? undefined : target;
}
