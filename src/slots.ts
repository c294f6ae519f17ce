// Making slots: one at a time, many at once, on the calling thread, and ready ones for the pool.
import { basename } from 'node:path';
import type { CloneRequest, Warm } from './clone-plan.js';
import type { ClonesFolder, OpenFolder } from './clones-folder.js';
import { copyImage } from './copy.js';
import { dressImage } from './dress.js';
import { abortError, isSystemError, RootfsError, rootfsError, type SystemError } from './errors.js';
import { ExistingSlots } from './existing-slots.js';
import { type GrowPrograms, growImage } from './grow.js';
import { checkAborted } from './long-work.js';
import {
  type Built,
  type CloneOutcome,
  type Created,
  inspectSlot,
  type NativeClone,
  native,
  RUNG,
  type Staged,
} from './native.js';
import { type Cold, Origins } from './origins.js';
import { type Pool, type PoolKey, readyName, readyStrategy } from './pool.js';
import type { SealedImages } from './sealed-images.js';
import { sharedInode, warnOfSharedInode } from './shared-inode.js';
import type { StackNames } from './stack-names.js';
import { rawIdFile } from './stamps.js';
import { changed, type Template, type Templates } from './templates.js';
import { type Attempt, attemptsOf, imagePath, type VmRootfs, vmRootfs } from './vm-rootfs.js';

// Each round is lost to another process that changed the template or the slot in the same instant.
const ROUNDS = 16;

// Requests in one trip of a batch: some milliseconds of work.
const BATCH = 64;

export class Slots {
  readonly #folder: ClonesFolder;
  readonly #origins: Origins;
  readonly #existing: ExistingSlots;
  readonly #programs: GrowPrograms;
  #readyMade = 0;

  constructor(
    folder: ClonesFolder,
    templates: Templates,
    names: StackNames,
    sealed: SealedImages | undefined,
    pool: Pool,
    programs: GrowPrograms,
  ) {
    this.#folder = folder;
    this.#origins = new Origins(folder, templates, names, sealed, pool);
    this.#existing = new ExistingSlots(folder, programs);
    this.#programs = programs;
  }

  async clone(request: CloneRequest): Promise<VmRootfs> {
    try {
      let look = !this.#origins.isKnown(request);
      let sealFailure: Attempt | undefined;
      for (let round = 0; round < ROUNDS; round++) {
        if (request.signal?.aborted) throw abortError(this.#what(request), request.signal);
        const looked = look ? await this.#origins.look(request) : undefined;
        const outcome = await this.#folder.use(async (folder) => {
          const warm = this.#warm(folder, request, sealFailure);
          return typeof warm === 'string'
            ? warm
            : this.#follow(folder, warm, await this.#launch(folder, warm));
        });
        if (typeof outcome === 'object') return outcome;
        look = outcome === 'template-changed';
        if (outcome === 'unsealed') {
          const done = await this.#reuseOrSeal(request, looked ?? (await this.#origins.look(request)));
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
      { path: `${this.#folder.path}/${request.vm.safe}` },
    );
  }

  /** On the calling thread; throws `NOT_WARM` where that would take more than the one trip. */
  cloneSync(request: CloneRequest): VmRootfs {
    const folder = this.#folder.opened;
    if (folder === undefined) throw this.#notWarm(request, 'the clones folder is not open yet');
    try {
      const warm = this.#warm(folder, request, undefined);
      if (warm === 'template-changed')
        throw this.#notWarm(request, 'the digest of the template is not known');
      if (warm === 'unsealed') throw this.#notWarm(request, 'the template is not sealed');
      return this.#followSync(warm, this.#launchSync(folder, warm));
    } catch (error) {
      if (this.#folder.isStale(error)) throw this.#notWarm(request, 'the clones folder was replaced');
      this.#folder.sweepAfter(error);
      throw rootfsError(this.#what(request), error);
    }
  }

  /** One settled result for each request, in order. Warm clones share trips. */
  async cloneMany(requests: readonly CloneRequest[]): Promise<PromiseSettledResult<VmRootfs>[]> {
    const batches: CloneRequest[][] = [];
    for (let i = 0; i < requests.length; i += BATCH) batches.push(requests.slice(i, i + BATCH));
    return (await Promise.all(batches.map((batch) => this.#cloneBatch(batch)))).flat();
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
    const together: { index: number; warm: Warm }[] = [];
    requests.forEach((request, index) => {
      const warm = request.signal?.aborted ? undefined : this.#tryWarm(folder, request);
      if (warm !== undefined && (warm.growTo === undefined || warm.ready !== undefined))
        together.push({ index, warm });
    });
    const outcomes = await native().cloneSlots(
      folder.store,
      together.map(({ warm }) => oneTrip(warm)),
    );
    together.forEach(({ index, warm }, i) => {
      alone[index] = () => this.#settleOne(folder, warm, outcomes[i] as CloneOutcome | SystemError);
    });
    return Promise.allSettled(alone.map((work) => work()));
  }

  async #settleOne(folder: OpenFolder, warm: Warm, outcome: CloneOutcome | SystemError): Promise<VmRootfs> {
    try {
      if (isSystemError(outcome)) {
        this.#origins.giveBack(warm);
        throw outcome;
      }
      const followed = await this.#follow(folder, warm, outcome);
      if (typeof followed === 'object') return followed;
    } catch (error) {
      if (!this.#folder.isStale(error)) {
        this.#folder.sweepAfter(error);
        throw rootfsError(this.#what(warm.request), error);
      }
    }
    return this.clone(warm.request);
  }

  /** What a request that is wrong in itself throws is for its own promise to tell. */
  #tryWarm(folder: OpenFolder, request: CloneRequest): Warm | undefined {
    try {
      const warm = this.#warm(folder, request, undefined);
      return typeof warm === 'object' ? warm : undefined;
    } catch {
      return undefined;
    }
  }

  /** Looks at the template, and where possible seals it, so that the next clone is one trip. */
  async warmUp(request: CloneRequest): Promise<Template> {
    try {
      return await this.#origins.warmUp(request);
    } catch (error) {
      throw rootfsError(this.#what(request), error);
    }
  }

  /** Makes a ready slot for the pool, and gives its name. Like a clone, but for nobody yet. */
  async makeReady(request: CloneRequest, key: PoolKey, prefix: string): Promise<string> {
    for (let round = 0; round < ROUNDS; round++) {
      const name = await this.#folder.use(async (folder) => {
        const warm = this.#origins.warm(folder, request, false, undefined);
        return typeof warm === 'string' ? undefined : this.#publishReady(folder, warm, key, prefix);
      });
      if (name !== undefined) return name;
      await this.#origins.warmUp(request);
    }
    throw changed(request.templatePath, 'keeps changing');
  }

  async #publishReady(folder: OpenFolder, warm: Warm, key: PoolKey, prefix: string): Promise<string> {
    const { template, origin, growTo, recipe } = warm;
    // A ready slot of other bytes must not get this name.
    if (template.sha256 !== key.template.sha256) throw changed(template.path, 'changed');
    const outcome = await native().stageReplacement(folder.store, origin.source, recipe.plan);
    const { staged, strategy } = outcome;
    try {
      await this.#complete(`making a ready slot of ${template.path}`, warm, outcome, undefined);
      const name = readyName(prefix, strategy, `${basename(folder.sessionPath)}-${this.#readyMade++}`);
      const sizeBytes = growTo ?? origin.identity.sizeBytes;
      const published = await native().publishSlot(staged, 'pool', name, sizeBytes, recipe.plan.companions);
      if (published !== 'created') throw changed(template.path, 'changed');
      return name;
    } finally {
      await native().discardSlot(staged);
    }
  }

  #what({ templatePath, vm }: CloneRequest): string {
    return `cloning ${templatePath} to ${imagePath(this.#folder, vm)}`;
  }

  #notWarm(request: CloneRequest, why: string): RootfsError {
    return new RootfsError(
      'NOT_WARM',
      `${this.#what(request)} on the calling thread: ${why}; call cloneForVm, or prewarm the stack first`,
    );
  }

  /** Ready slots are not flushed: one never serves a `durable` clone. */
  #warm(folder: OpenFolder, request: CloneRequest, sealFailure: Attempt | undefined): Warm | Cold {
    return this.#origins.warm(folder, request, !request.durable, sealFailure);
  }

  /** A slot that is there needs no sealed image. Else one is made, or the reason why not is returned. */
  async #reuseOrSeal(request: CloneRequest, template: Template): Promise<VmRootfs | Attempt | undefined> {
    const existing = await this.#folder.use(async (folder) => {
      const state = await inspectSlot(folder.store, request.vm.safe);
      if (state.kind === 'absent') return undefined;
      return this.#existing.reuse(this.#what(request), folder, request, template, state);
    });
    if (existing !== undefined) return existing === 'again' ? undefined : existing;
    return this.#origins.seal(request, template);
  }

  async #launch({ store }: OpenFolder, warm: Warm): Promise<CloneOutcome> {
    const { origin, recipe, request, rawId, ready, growTo } = warm;
    const addon = native();
    const clone: NativeClone = [origin.source, recipe.handle, request.vm.safe, rawId, ready];
    try {
      return growTo === undefined
        ? await addon.cloneSlot(store, ...clone)
        : await addon.stageSlot(store, ...clone);
    } catch (error) {
      this.#origins.giveBack(warm);
      throw error;
    }
  }

  #launchSync({ store }: OpenFolder, warm: Warm): CloneOutcome {
    try {
      return native().cloneSlotSync(store, ...oneTrip(warm));
    } catch (error) {
      this.#origins.giveBack(warm);
      throw error;
    }
  }

  async #follow(folder: OpenFolder, warm: Warm, outcome: CloneOutcome): Promise<VmRootfs | Cold | 'again'> {
    if (outcome === 'reflinked' || outcome === 'pooled') return this.#madeInOneTrip(warm, outcome);
    if (!('staged' in outcome) && outcome.status !== 'created') this.#origins.giveBack(warm);
    switch (outcome.status) {
      case 'created':
        return this.#created(warm, outcome);
      case 'staged':
      case 'copy-needed':
        return this.#finish(folder, warm, outcome);
      case 'exists': {
        const { request, template } = warm;
        return this.#existing.reuse(this.#what(request), folder, request, template, outcome.existing);
      }
      case 'template-changed':
        return 'template-changed';
      case 'source-changed':
        return this.#origins.sourceChanged(warm);
      case 'shared-inode':
        throw sharedInode(warm.request);
    }
  }

  #followSync(warm: Warm, outcome: CloneOutcome): VmRootfs {
    if (outcome === 'reflinked' || outcome === 'pooled') return this.#madeInOneTrip(warm, outcome);
    const { request, template } = warm;
    if (outcome.status === 'created') return this.#created(warm, outcome);
    if ('staged' in outcome) {
      native().dispose(outcome.staged);
      throw this.#notWarm(request, 'it would have to be copied or grown');
    }
    this.#origins.giveBack(warm);
    if (outcome.status === 'shared-inode') throw sharedInode(request);
    if (outcome.status === 'exists') {
      const found = this.#existing.asItIs(request, template, outcome.existing);
      if (found !== undefined) return found;
      throw this.#notWarm(request, 'the slot is there, but is to be changed');
    }
    throw this.#notWarm(request, 'the template has changed');
  }

  #madeInOneTrip(warm: Warm, how: 'reflinked' | 'pooled'): VmRootfs {
    const { request, template, ready, attempts } = warm;
    return vmRootfs(this.#folder, request, template, {
      sizeBytes: request.sizeBytes ?? template.identity.sizeBytes,
      strategy: how === 'pooled' ? readyStrategy(ready ?? '') : 'reflink',
      reused: false,
      pooled: how === 'pooled',
      attempts,
    });
  }

  #created(warm: Warm, outcome: Created): VmRootfs {
    const { request, template } = warm;
    if (outcome.sourceNow !== undefined) this.#origins.sourceSeen(warm, outcome.sourceNow);
    if (outcome.strategy === 'hardlink') warnOfSharedInode(request, template);
    return this.#made(warm, outcome);
  }

  /** What does not fit into one trip: copies, grows, publishes. */
  async #finish(folder: OpenFolder, warm: Warm, outcome: Staged): Promise<VmRootfs | Cold | 'again'> {
    const { request, template, origin, growTo, recipe, rawId } = warm;
    const slot = request.vm.safe;
    const what = this.#what(request);
    const { staged } = outcome;
    try {
      await this.#complete(what, warm, outcome, request.signal);
      const sizeBytes = growTo ?? origin.identity.sizeBytes;
      const companions = [...recipe.plan.companions, ...rawIdFile(rawId)];
      const published = await native().publishSlot(staged, 'slots', slot, sizeBytes, companions);
      if (published === 'exists') {
        // Another caller was faster. Looked at at once: another round would copy it all again.
        const state = await inspectSlot(folder.store, slot);
        return await this.#existing.reuse(what, folder, request, template, state);
      }
      if (published === 'source-changed') return this.#origins.sourceChanged(warm);
      return this.#made(warm, outcome);
    } finally {
      await native().discardSlot(staged);
    }
  }

  /** What a staged image still lacks. */
  async #complete(
    what: string,
    { request, growTo }: Warm,
    { status, staged, imagePath }: Staged,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (status === 'copy-needed') await copyImage(what, staged, signal);
    if (growTo !== undefined) {
      await growImage(imagePath, growTo, this.#programs, signal);
      await dressImage(imagePath, request);
    }
    checkAborted(what, signal);
  }

  #made({ request, template, attempts }: Warm, built: Built): VmRootfs {
    return vmRootfs(this.#folder, request, template, {
      sizeBytes: request.sizeBytes ?? template.identity.sizeBytes,
      strategy: built.strategy,
      reused: false,
      attempts: [...attempts, ...attemptsOf(built.attempts)],
    });
  }
}

/**
 * A clone that is published in the same trip. One that has to be grown can only come from the pool: if its ready slot is gone, a copy is
 * begun, which is never published in that trip.
 */
function oneTrip({ origin, recipe, request, rawId, ready, growTo }: Warm): NativeClone {
  const handle =
    growTo === undefined ? recipe.handle : native().newPlan({ ...recipe.plan, rungs: RUNG.copy });
  return [origin.source, handle, request.vm.safe, rawId, ready];
}
