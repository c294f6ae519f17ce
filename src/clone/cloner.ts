// Makes the clone of a VM, and ready slots for the pool.

import type { Attempt } from '../addon/attempts.js';
import { inspectSlot } from '../addon/native.js';
import type { StacksByDigest } from '../catalog/stacks-by-digest.js';
import { type Template, templateChangedError } from '../catalog/template.js';
import type { Templates } from '../catalog/templates.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import type { GrowPrograms } from '../image/grow.js';
import type { SealedImages } from '../sealed/sealed-images.js';
import type { Sharers } from '../slot/shared-image.js';
import { slotBusyError } from '../slot/slot-errors.js';
import { asRootfsError, type RootfsError } from '../system/errors.js';
import { inTurn } from '../system/long-work.js';
import { Task } from '../system/task.js';
import { Turns } from '../system/turns.js';
import { BatchCloner } from './clone-many.js';
import { type CloneRequest, type CloneRound, type PreparedClone, roundOf } from './clone-plan.js';
import { CloneSources, type MissingStep } from './clone-sources.js';
import { SyncCloner } from './clone-sync.js';
import { CloneTrips, takesLong } from './clone-trips.js';
import { ExistingSlots } from './existing-slots.js';
import type { Pool } from './pool.js';
import type { PoolKey } from './pool-files.js';
import { StagedClones } from './staged-clones.js';
import { describeClone, type VmRootfs } from './vm-rootfs.js';

// Each retry means that another process changed the template or the slot at the same moment.
const ROUNDS = 16;

// Limits how many closed templates are reopened at once. Each reopened template holds two descriptors outside the
// limit on open images.
const reopening = new Turns(32);

type WaitForTurn = typeof inTurn;

const inReopeningTurn: WaitForTurn = (task, job) => reopening.run(task, job);

interface ClonerParts {
  readonly folder: ManagedFolder;
  readonly templates: Templates;
  readonly stacks: StacksByDigest;
  /** Undefined if clones come straight from the templates. */
  readonly sealed: SealedImages | undefined;
  readonly pool: Pool;
  readonly sharers: Sharers;
  readonly programs: GrowPrograms;
}

export class Cloner {
  readonly batches: BatchCloner;
  readonly sync: SyncCloner;
  readonly #folder: ManagedFolder;
  readonly #sources: CloneSources;
  readonly #existing: ExistingSlots;
  readonly #staged: StagedClones;
  readonly #trips: CloneTrips;

  constructor({ folder, templates, stacks, sealed, pool, sharers, programs }: ClonerParts) {
    this.#folder = folder;
    this.#sources = new CloneSources(folder, templates, stacks, sealed, pool);
    this.#existing = new ExistingSlots(folder, sharers, programs);
    this.#staged = new StagedClones(folder, this.#sources, this.#existing, programs);
    this.#trips = new CloneTrips(folder, this.#sources, this.#existing, this.#staged);
    this.batches = new BatchCloner(folder, this.#sources, this.#trips, (request) => this.clone(request));
    this.sync = new SyncCloner(folder, this.#sources, this.#existing, this.#trips);
  }

  async clone(request: CloneRequest): Promise<VmRootfs> {
    try {
      let look = !this.#sources.isKnown(request);
      let sealFailure: Attempt | undefined;
      for (let number = 0; number < ROUNDS; number++) {
        if (request.signal?.aborted) this.#task(request).checkAborted();
        const looked = look ? await this.#sources.look(request) : undefined;
        const outcome = await this.#folder.use((folder) =>
          this.#cloneOnce(roundOf(folder, request, sealFailure), number === 0),
        );
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
      throw asRootfsError(describeClone(this.#folder, request), error);
    }
    throw this.#keepsChangingError(request);
  }

  /**
   * One round. The caller prepares what the first one lacks. What a later one lacks, other clones have closed
   * meanwhile.
   */
  async #cloneOnce(round: CloneRound, isFirst: boolean): Promise<VmRootfs | MissingStep | 'again'> {
    const { folder, request } = round;
    const prepared = this.#sources.prepare(round);
    const isReady = typeof prepared === 'object';
    if (!isReady && isFirst) return prepared;
    // A flush can take seconds.
    if (request.durable || (isReady && takesLong(folder, prepared))) return this.#cloneInTurn(round, inTurn);
    if (!isReady) return this.#cloneInTurn(round, inReopeningTurn);
    return this.#trips.finish(folder, prepared, await this.#trips.run(folder, prepared));
  }

  /** Prepares after the wait: what was prepared before may be closed by then. */
  async #cloneInTurn(round: CloneRound, waitForTurn: WaitForTurn): Promise<VmRootfs | MissingStep | 'again'> {
    const { folder, request } = round;
    const ran = await waitForTurn(this.#task(request), async () => {
      const prepared = await this.#reopen(round);
      if (typeof prepared === 'string') return prepared;
      if (waitForTurn !== inTurn && takesLong(folder, prepared)) return 'long';
      return { prepared, outcome: await this.#trips.run(folder, prepared) };
    });
    if (ran === 'long') return this.#cloneInTurn(round, inTurn);
    return typeof ran === 'string' ? ran : this.#trips.finish(folder, ran.prepared, ran.outcome);
  }

  /** Do not await anything between this and the call into the addon: see {@link CloneSources.prepare}. */
  async #reopen(round: CloneRound): Promise<PreparedClone | MissingStep> {
    const prepared = this.#sources.prepare(round);
    if (typeof prepared === 'object') return prepared;
    await this.#sources.reopen(round);
    return this.#sources.prepare(round);
  }

  /** Looks at the template and seals it where possible, so that the next clone is one trip. */
  async warmUp(request: CloneRequest, pack = false): Promise<Template> {
    try {
      return await this.#sources.warmUp(request, pack);
    } catch (error) {
      throw asRootfsError(describeClone(this.#folder, request), error);
    }
  }

  /** Makes a ready slot for the pool, and returns its name. */
  async makeReady(request: CloneRequest, key: PoolKey, prefix: string): Promise<string> {
    for (let number = 0; number < ROUNDS; number++) {
      const name = await this.#folder.use(async (folder) => {
        const round: CloneRound = { folder, request, fromPool: false, sealFailure: undefined };
        let prepared = this.#sources.prepare(round);
        if (typeof prepared === 'string' && number > 0) {
          await reopening.run(this.#task(request), () => this.#sources.reopen(round));
          prepared = this.#sources.prepare(round);
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

  /** An existing slot needs no sealed image. Otherwise one is made, or the reason why not is returned. */
  async #reuseOrSeal(
    request: CloneRequest,
    template: Template,
  ): Promise<VmRootfs | Attempt | 'template-changed' | undefined> {
    const existing = await this.#folder.use(async (folder) => {
      const state = await inspectSlot(folder.handle, request.vm.safe);
      if (state.kind === 'absent') return undefined;
      const what = describeClone(this.#folder, request);
      return this.#existing.reuse(what, folder, request, template, state);
    });
    if (existing !== undefined) return existing === 'again' ? undefined : existing;
    return this.#sources.seal(request, template);
  }

  #task(request: CloneRequest): Task {
    return new Task(describeClone(this.#folder, request), request.signal);
  }

  #keepsChangingError(request: CloneRequest): RootfsError {
    const path = `${this.#folder.path}/${request.vm.safe}`;
    return slotBusyError(describeClone(this.#folder, request), path, 'the slot or the template');
  }
}
