// Makes a clone on the calling thread, where one trip is enough.

import { type CloneOutcome, native } from '../addon/native.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { asRootfsError, RootfsError } from '../system/errors.js';
import type { CloneRequest, PreparedClone } from './clone-plan.js';
import type { CloneSources } from './clone-sources.js';
import { type CloneTrips, isMade } from './clone-trips.js';
import type { ExistingSlots } from './existing-slots.js';
import { sharedInodeError } from './shared-inode.js';
import { describeClone, type VmRootfs } from './vm-rootfs.js';

export class SyncCloner {
  readonly #folder: ManagedFolder;
  readonly #sources: CloneSources;
  readonly #existing: ExistingSlots;
  readonly #trips: CloneTrips;

  constructor(folder: ManagedFolder, sources: CloneSources, existing: ExistingSlots, trips: CloneTrips) {
    this.#folder = folder;
    this.#sources = sources;
    this.#existing = existing;
    this.#trips = trips;
  }

  /** Throws `NOT_WARM` if the clone needs more than one trip. */
  clone(request: CloneRequest): VmRootfs {
    const folder = this.#folder.opened;
    if (folder === undefined) throw this.#notWarmError(request, 'the clones folder is not open yet');
    try {
      // Taking a ready slot flushes the raw id that it gets, and this call flushes nothing unless it was asked to.
      const fromPool = !request.durable && request.vm.raw === request.vm.safe;
      const prepared = this.#sources.prepare({ folder, request, fromPool, sealFailure: undefined });
      if (prepared === 'template-changed')
        throw this.#notWarmError(request, 'the digest of the template is not known');
      if (prepared === 'unsealed') throw this.#notWarmError(request, 'the template is not sealed');
      return this.#finish(prepared, this.#trips.runSync(folder, prepared));
    } catch (error) {
      if (this.#folder.isStale(error)) throw this.#notWarmError(request, 'the clones folder was replaced');
      this.#folder.sweepAfter(error);
      // The slot exists by then, and this call does not hand out existing slots.
      throw asRootfsError(describeClone(this.#folder, request), error, 'cloneForVm flushes it again');
    } finally {
      this.#folder.used();
    }
  }

  #finish(prepared: PreparedClone, outcome: CloneOutcome): VmRootfs {
    if (isMade(outcome)) return this.#trips.made(prepared, outcome);
    const { request, template } = prepared;
    if ('staged' in outcome) {
      this.#sources.madeAnew(prepared);
      native().dispose(outcome.staged);
      throw this.#notWarmError(request, 'it would have to be copied or grown');
    }
    this.#sources.giveBack(prepared);
    if (outcome.status === 'shared-inode') throw sharedInodeError(request);
    if (outcome.status === 'exists') {
      const found = this.#existing.asItIs(request, template, outcome.existing);
      if (found !== undefined) return found;
      throw this.#notWarmError(request, 'the slot exists, and reusing it takes more than one step');
    }
    throw this.#notWarmError(request, 'the template has changed');
  }

  #notWarmError(request: CloneRequest, why: string): RootfsError {
    return new RootfsError(
      'NOT_WARM',
      `${describeClone(this.#folder, request)} on the calling thread: ${why}; ` +
        'call cloneForVm, or prewarm the stack first',
    );
  }
}
