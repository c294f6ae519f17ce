// Makes slots: one, many at once, on the calling thread, and ready ones for the pool.

import type { Attempt } from '../addon/attempts.js';
import {
  type CloneOutcome,
  type Created,
  inspectSlot,
  type NativeClone,
  type NativePlan,
  type NotCloned,
  native,
  RUNG,
} from '../addon/native.js';
import type { StacksByDigest } from '../catalog/stacks-by-digest.js';
import { type Template, templateChangedError } from '../catalog/template.js';
import type { Templates } from '../catalog/templates.js';
import type { ManagedFolder, OpenFolder } from '../folder/managed-folder.js';
import { QUICK_EXTENTS } from '../image/extents.js';
import type { GrowPrograms } from '../image/grow.js';
import { isSealedImage } from '../sealed/open-images.js';
import type { SealedImages } from '../sealed/sealed-images.js';
import { abortError, asRootfsError, isSystemError, RootfsError, type SystemError } from '../system/errors.js';
import { inTurn } from '../system/long-work.js';
import { Task } from '../system/task.js';
import { Turns } from '../system/turns.js';
import type { CloneRequest, PreparedClone } from './clone-plan.js';
import { CloneSources, type MissingStep } from './clone-sources.js';
import { ExistingSlots } from './existing-slots.js';
import { Lanes } from './lanes.js';
import { type Pool, type PoolKey, readyStrategy } from './pool.js';
import { sharedInodeError, warnOfSharedInode } from './shared-inode.js';
import { StagedClones } from './staged-clones.js';
import { builtRootfs, describeClone, type VmRootfs, vmRootfs } from './vm-rootfs.js';

// Each retry means that another process changed the template or the slot at the same moment.
const ROUNDS = 16;

// Requests per trip of a batch: a few milliseconds of work.
const BATCH = 64;

// All registries share the file system's locks and Node's threads.
const lanes = new Lanes();

// Each holds two descriptors that nobody counts.
const reopening = new Turns(32);

export class Cloner {
  readonly #folder: ManagedFolder;
  readonly #sources: CloneSources;
  readonly #existing: ExistingSlots;
  readonly #staged: StagedClones;

  constructor(
    folder: ManagedFolder,
    templates: Templates,
    stacks: StacksByDigest,
    sealed: SealedImages | undefined,
    pool: Pool,
    programs: GrowPrograms,
  ) {
    this.#folder = folder;
    this.#sources = new CloneSources(folder, templates, stacks, sealed, pool);
    this.#existing = new ExistingSlots(folder, programs);
    this.#staged = new StagedClones(folder, this.#sources, this.#existing, programs);
  }

  async clone(request: CloneRequest): Promise<VmRootfs> {
    try {
      let look = !this.#sources.isKnown(request);
      let sealFailure: Attempt | undefined;
      for (let round = 0; round < ROUNDS; round++) {
        if (request.signal?.aborted) throw abortError(this.#what(request), request.signal);
        const looked = look ? await this.#sources.look(request) : undefined;
        const outcome = await this.#folder.use(async (folder) => {
          const prepared = this.#prepare(folder, request, sealFailure);
          // What was missing has been made by the second round. If it is missing again, other clones have closed it.
          if (typeof prepared === 'string')
            return round === 0 ? prepared : this.#cloneReopened(folder, request, sealFailure);
          // A flush takes as long as the disk likes.
          if (request.durable || takesLong(folder, prepared))
            return this.#cloneInTurn(folder, request, sealFailure);
          return this.#handleOutcome(folder, prepared, await this.#run(folder, prepared));
        });
        if (typeof outcome === 'object') return outcome;
        look = outcome === 'template-changed';
        if (outcome === 'unsealed') {
          const done = await this.#reuseOrSeal(request, looked ?? (await this.#sources.look(request)));
          if (typeof done === 'object' && 'vmId' in done) return done;
          if (done === 'template-changed') look = true;
          else sealFailure = done;
        }
      }
    } catch (error) {
      throw asRootfsError(this.#what(request), error);
    }
    throw new RootfsError(
      'SLOT_BUSY',
      `${this.#what(request)}: other processes keep changing the slot or the template at the same moment; try again`,
      { path: `${this.#folder.path}/${request.vm.safe}` },
    );
  }

  /** Prepares after the wait: what was prepared before may be closed by then. */
  async #cloneInTurn(
    folder: OpenFolder,
    request: CloneRequest,
    sealFailure: Attempt | undefined,
  ): Promise<VmRootfs | MissingStep | 'again'> {
    const ran = await inTurn(this.#task(request), async () => {
      const prepared = await this.#reopen(folder, request, sealFailure);
      if (typeof prepared === 'string') return prepared;
      return { prepared, outcome: await this.#run(folder, prepared) };
    });
    return typeof ran === 'string' ? ran : this.#handleOutcome(folder, ran.prepared, ran.outcome);
  }

  /** Of more templates than can be open at once, only so many are opened at a time that all of them get their turn. */
  async #cloneReopened(
    folder: OpenFolder,
    request: CloneRequest,
    sealFailure: Attempt | undefined,
  ): Promise<VmRootfs | MissingStep | 'again'> {
    if (request.durable) return this.#cloneInTurn(folder, request, sealFailure);
    const ran = await reopening.run(this.#task(request), async () => {
      const prepared = await this.#reopen(folder, request, sealFailure);
      if (typeof prepared === 'string') return prepared;
      if (takesLong(folder, prepared)) return 'long';
      return { prepared, outcome: await this.#run(folder, prepared) };
    });
    if (ran === 'long') return this.#cloneInTurn(folder, request, sealFailure);
    return typeof ran === 'string' ? ran : this.#handleOutcome(folder, ran.prepared, ran.outcome);
  }

  /** Do not await anything between this and the call into the addon: see {@link CloneSources.prepare}. */
  async #reopen(
    folder: OpenFolder,
    request: CloneRequest,
    sealFailure: Attempt | undefined,
  ): Promise<PreparedClone | MissingStep> {
    const prepared = this.#prepare(folder, request, sealFailure);
    if (typeof prepared === 'object') return prepared;
    await this.#sources.reopen(folder, request, sealFailure);
    return this.#prepare(folder, request, sealFailure);
  }

  /** On the calling thread. Throws `NOT_WARM` if the clone needs more than one trip. */
  cloneSync(request: CloneRequest): VmRootfs {
    const folder = this.#folder.opened;
    if (folder === undefined) throw this.#notWarmError(request, 'the clones folder is not open yet');
    try {
      // A ready slot gets a raw id in a file that is flushed, and nothing is flushed here unless that was asked for.
      const fromPool = !request.durable && request.vm.raw === request.vm.safe;
      const prepared = this.#sources.prepare(folder, request, fromPool, undefined);
      if (prepared === 'template-changed')
        throw this.#notWarmError(request, 'the digest of the template is not known');
      if (prepared === 'unsealed') throw this.#notWarmError(request, 'the template is not sealed');
      return this.#handleOutcomeSync(prepared, this.#runSync(folder, prepared));
    } catch (error) {
      if (this.#folder.isStale(error)) throw this.#notWarmError(request, 'the clones folder was replaced');
      this.#folder.sweepAfter(error);
      throw asRootfsError(this.#what(request), error);
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
    const together: { index: number; prepared: PreparedClone }[] = [];
    const outcomes = await lanes
      .run(async () => {
        requests.forEach((request, index) => {
          const prepared = request.signal?.aborted ? undefined : this.#tryPrepare(folder, request);
          if (prepared === undefined || takesLong(folder, prepared)) return;
          if (prepared.growTo === undefined || prepared.ready !== undefined)
            together.push({ index, prepared });
        });
        const clones = together.map(({ prepared }) => oneTrip(prepared));
        return clones.length === 0 ? [] : native().cloneSlots(folder.handle, clones);
      })
      .catch((error) => {
        for (const { prepared } of together) this.#sources.giveBack(prepared);
        throw error;
      });
    together.forEach(({ index, prepared }, i) => {
      alone[index] = () => this.#finishOne(folder, prepared, outcomes[i] as CloneOutcome | SystemError);
    });
    return Promise.allSettled(alone.map((work) => work()));
  }

  async #finishOne(
    folder: OpenFolder,
    prepared: PreparedClone,
    outcome: CloneOutcome | SystemError,
  ): Promise<VmRootfs> {
    try {
      if (isSystemError(outcome)) {
        this.#sources.giveBack(prepared);
        throw outcome;
      }
      const result = await this.#handleOutcome(folder, prepared, outcome);
      if (typeof result === 'object') return result;
    } catch (error) {
      if (!this.#folder.isStale(error)) {
        this.#folder.sweepAfter(error);
        throw asRootfsError(this.#what(prepared.request), error);
      }
    }
    return this.clone(prepared.request);
  }

  /** Undefined for an invalid request as well: its own promise reports the error. */
  #tryPrepare(folder: OpenFolder, request: CloneRequest): PreparedClone | undefined {
    try {
      const prepared = this.#prepare(folder, request, undefined);
      return typeof prepared === 'object' ? prepared : undefined;
    } catch {
      return undefined;
    }
  }

  /** Looks at the template and seals it where possible, so that the next clone is one trip. */
  async warmUp(request: CloneRequest, pack = false): Promise<Template> {
    try {
      return await this.#sources.warmUp(request, pack);
    } catch (error) {
      throw asRootfsError(this.#what(request), error);
    }
  }

  /** Makes a ready slot for the pool, and returns its name. */
  async makeReady(request: CloneRequest, key: PoolKey, prefix: string): Promise<string> {
    for (let round = 0; round < ROUNDS; round++) {
      const name = await this.#folder.use(async (folder) => {
        const prepare = () => this.#sources.prepare(folder, request, false, undefined);
        let prepared = prepare();
        if (typeof prepared === 'string' && round > 0) {
          await reopening.run(this.#task(request), () => this.#sources.reopen(folder, request, undefined));
          prepared = prepare();
        }
        return typeof prepared === 'string'
          ? undefined
          : this.#staged.publishReady(folder, prepared, key, prefix);
      });
      if (name !== undefined) return name;
      await this.#sources.warmUp(request);
    }
    throw templateChangedError(request.templatePath, 'keeps changing');
  }

  #task(request: CloneRequest): Task {
    return new Task(this.#what(request), request.signal);
  }

  #what(request: CloneRequest): string {
    return describeClone(this.#folder, request);
  }

  #notWarmError(request: CloneRequest, why: string): RootfsError {
    return new RootfsError(
      'NOT_WARM',
      `${this.#what(request)} on the calling thread: ${why}; call cloneForVm, or prewarm the stack first`,
    );
  }

  /** Ready slots are not flushed, so they never serve a `durable` clone. */
  #prepare(
    folder: OpenFolder,
    request: CloneRequest,
    sealFailure: Attempt | undefined,
  ): PreparedClone | MissingStep {
    return this.#sources.prepare(folder, request, !request.durable, sealFailure);
  }

  /** An existing slot needs no sealed image. Otherwise one is made, or the reason why not is returned. */
  async #reuseOrSeal(
    request: CloneRequest,
    template: Template,
  ): Promise<VmRootfs | Attempt | 'template-changed' | undefined> {
    const existing = await this.#folder.use(async (folder) => {
      const state = await inspectSlot(folder.handle, request.vm.safe);
      if (state.kind === 'absent') return undefined;
      return this.#existing.reuse(this.#what(request), folder, request, template, state);
    });
    if (existing !== undefined) return existing === 'again' ? undefined : existing;
    return this.#sources.seal(request, template);
  }

  async #run({ handle }: OpenFolder, prepared: PreparedClone): Promise<CloneOutcome> {
    const addon = native();
    const clone = nativeClone(prepared, prepared.recipe.handle);
    try {
      return prepared.growTo === undefined
        ? await addon.cloneSlot(handle, ...clone)
        : await addon.stageSlot(handle, ...clone);
    } catch (error) {
      this.#sources.giveBack(prepared);
      throw error;
    }
  }

  #runSync({ handle }: OpenFolder, prepared: PreparedClone): CloneOutcome {
    try {
      return native().cloneSlotSync(handle, ...oneTrip(prepared));
    } catch (error) {
      this.#sources.giveBack(prepared);
      throw error;
    }
  }

  async #handleOutcome(
    folder: OpenFolder,
    prepared: PreparedClone,
    outcome: CloneOutcome,
  ): Promise<VmRootfs | MissingStep | 'again'> {
    if (outcome === 'reflinked' || outcome === 'pooled') return this.#madeInOneTrip(prepared, outcome);
    if (!('staged' in outcome) && outcome.status !== 'created') this.#sources.giveBack(prepared);
    switch (outcome.status) {
      case 'created':
        return this.#created(prepared, outcome);
      case 'staged':
      case 'copy-needed':
        return this.#staged.finish(folder, prepared, outcome);
      case 'exists': {
        const { request, template } = prepared;
        return this.#existing.reuse(this.#what(request), folder, request, template, outcome.existing);
      }
      case 'template-changed':
        return 'template-changed';
      case 'source-changed':
        return this.#sources.sourceChanged(prepared);
      case 'shared-inode':
        this.#noteSource(prepared, outcome);
        throw sharedInodeError(prepared.request);
    }
  }

  #handleOutcomeSync(prepared: PreparedClone, outcome: CloneOutcome): VmRootfs {
    if (outcome === 'reflinked' || outcome === 'pooled') return this.#madeInOneTrip(prepared, outcome);
    const { request, template } = prepared;
    if (outcome.status === 'created') return this.#created(prepared, outcome);
    if ('staged' in outcome) {
      native().dispose(outcome.staged);
      throw this.#notWarmError(request, 'it would have to be copied or grown');
    }
    this.#sources.giveBack(prepared);
    if (outcome.status === 'shared-inode') {
      this.#noteSource(prepared, outcome);
      throw sharedInodeError(request);
    }
    if (outcome.status === 'exists') {
      const found = this.#existing.asItIs(request, template, outcome.existing);
      if (found !== undefined) return found;
      throw this.#notWarmError(request, 'the slot exists, and has to be looked at more closely or changed');
    }
    throw this.#notWarmError(request, 'the template has changed');
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

  /** A hardlink that came, or came and went, has changed the template's ctime and nothing else. */
  #noteSource(prepared: PreparedClone, { sourceNow }: Created | NotCloned): void {
    if (sourceNow !== undefined) this.#sources.sourceSeen(prepared, sourceNow);
  }

  #created(prepared: PreparedClone, outcome: Created): VmRootfs {
    const { request, template } = prepared;
    this.#noteSource(prepared, outcome);
    if (outcome.strategy === 'hardlink') warnOfSharedInode(request, template);
    return builtRootfs(this.#folder, prepared, outcome);
  }
}

/** Whether the reflink may take milliseconds. A template that is not sealed may have any number of extents. */
function takesLong({ reflinks }: OpenFolder, { cloneSource, ready }: PreparedClone): boolean {
  if (ready !== undefined) return false;
  return isSealedImage(cloneSource) ? (cloneSource.extents ?? 0) > QUICK_EXTENTS : reflinks === true;
}

/**
 * A clone that is published in the same trip. A clone that has to grow can only come from the pool. If its ready slot
 * is gone, the addon starts a copy instead, which this trip does not publish.
 */
function oneTrip(prepared: PreparedClone): NativeClone {
  const { recipe, growTo } = prepared;
  const plan = growTo === undefined ? recipe.handle : native().newPlan({ ...recipe.plan, rungs: RUNG.copy });
  return nativeClone(prepared, plan);
}

function nativeClone({ cloneSource, request, rawId, ready }: PreparedClone, plan: NativePlan): NativeClone {
  return [cloneSource.source, plan, request.vm.safe, rawId, ready];
}
