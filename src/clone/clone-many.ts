// Makes many clones at once: warm ones share trips.

import { availableParallelism } from 'node:os';
import type { CloneOutcome } from '../addon/native.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import type { OpenFolder } from '../folder/open-folder.js';
import { allOrNone } from '../system/all-or-none.js';
import { asRootfsError, isSystemError, type SystemError } from '../system/errors.js';
import { settleInLanes } from '../system/settle-many.js';
import { Task } from '../system/task.js';
import { Turns } from '../system/turns.js';
import { type CloneRequest, type PreparedClone, roundOf } from './clone-plan.js';
import type { CloneSources } from './clone-sources.js';
import { type CloneTrips, takesLong } from './clone-trips.js';
import { describeClone, type VmRootfs } from './vm-rootfs.js';

// Requests per trip. Some milliseconds of work, so that threads seldom wait for the event loop to hand them more; the
// last trips are smaller, so that all threads end at about the same time.
const MAX_BATCH = 128;
const MIN_BATCH = 32;

// Clones in one folder take the file system's locks, so many threads only wait for each other. One more than there are
// processors works while another waits for the event loop. One of Node's four threads is left to everybody else. All
// registries share these turns.
const TRIPS = Math.min(availableParallelism() + 1, 3);
const turns = new Turns(TRIPS);

// One batch more than there are turns is under way, so that the next trip is ready when another ends. To begin all of
// them at once would hold the event loop.
const LANES = TRIPS + 1;

// How many clones run at once that cannot share a trip. Those that wait for the same thing, such as a template's
// digest, all go on in one turn of the event loop.
const ALONE = 64;

/** Undefined if the request could not share the trip. */
type SettledTogether = PromiseSettledResult<VmRootfs> | undefined;

export class BatchCloner {
  readonly #folder: ManagedFolder;
  readonly #sources: CloneSources;
  readonly #trips: CloneTrips;
  readonly #cloneAlone: (request: CloneRequest) => Promise<VmRootfs>;

  /** `cloneAlone` makes what cannot share a trip. */
  constructor(
    folder: ManagedFolder,
    sources: CloneSources,
    trips: CloneTrips,
    cloneAlone: (request: CloneRequest) => Promise<VmRootfs>,
  ) {
    this.#folder = folder;
    this.#sources = sources;
    this.#trips = trips;
    this.#cloneAlone = cloneAlone;
  }

  /** One settled result for each request, in order. */
  async clone(requests: readonly CloneRequest[]): Promise<PromiseSettledResult<VmRootfs>[]> {
    // The first open the folder, and mostly make the others warm.
    const first = this.#folder.opened === undefined ? requests.slice(0, ALONE) : [];
    const cold = await this.#cloneEachAlone(first);
    return [...cold, ...(await this.#cloneBatches(requests.slice(first.length)))];
  }

  #cloneEachAlone(requests: readonly CloneRequest[]): Promise<PromiseSettledResult<VmRootfs>[]> {
    return settleInLanes(
      requests.map((request) => () => this.#cloneAlone(request)),
      ALONE,
    );
  }

  async #cloneBatches(requests: readonly CloneRequest[]): Promise<PromiseSettledResult<VmRootfs>[]> {
    const items = [...batchesOf(requests)];
    const work = (batch: readonly CloneRequest[]) => this.#cloneBatch(batch);
    const together = (await allOrNone({ items, atOnce: LANES, signal: undefined, work })).flat();
    const rest = requests.filter((_, i) => together[i] === undefined);
    const alone = (await this.#cloneEachAlone(rest)).values();
    return together.map((settled) => settled ?? (alone.next().value as PromiseSettledResult<VmRootfs>));
  }

  async #cloneBatch(requests: readonly CloneRequest[]): Promise<SettledTogether[]> {
    if (this.#folder.opened === undefined) return requests.map(() => undefined);
    return this.#folder.use((folder) => this.#cloneTogether(folder, requests));
  }

  async #cloneTogether(folder: OpenFolder, requests: readonly CloneRequest[]): Promise<SettledTogether[]> {
    const together: { index: number; prepared: PreparedClone }[] = [];
    const task = new Task(`making clones in ${this.#folder.path}`, undefined);
    const outcomes = await turns.run(task, () => {
      for (const [index, request] of requests.entries()) {
        const prepared = this.#prepareOneTrip(folder, request);
        if (prepared !== undefined) together.push({ index, prepared });
      }
      return this.#trips.runMany(
        folder,
        together.map(({ prepared }) => prepared),
      );
    });
    const settled: SettledTogether[] = requests.map(() => undefined);
    const finished = await Promise.allSettled(
      together.map(({ prepared }, i) =>
        this.#finishOne(folder, prepared, outcomes[i] as CloneOutcome | SystemError),
      ),
    );
    together.forEach(({ index }, i) => {
      settled[index] = finished[i];
    });
    return settled;
  }

  /** Undefined if one short trip is not enough. Also for an invalid request: its own promise reports the error. */
  #prepareOneTrip(folder: OpenFolder, request: CloneRequest): PreparedClone | undefined {
    if (request.signal?.aborted) return undefined;
    try {
      const prepared = this.#sources.prepare(roundOf(folder, request));
      if (typeof prepared === 'string' || takesLong(folder, prepared)) return undefined;
      return prepared.growTo === undefined || prepared.ready !== undefined ? prepared : undefined;
    } catch {
      return undefined;
    }
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
      const result = await this.#trips.finish(folder, prepared, outcome);
      if (typeof result === 'object') return result;
    } catch (error) {
      if (!this.#folder.isStale(error)) {
        this.#folder.sweepAfter(error);
        throw asRootfsError(describeClone(this.#folder, prepared.request), error);
      }
    }
    return this.#cloneAlone(prepared.request);
  }
}

function* batchesOf(requests: readonly CloneRequest[]): Generator<readonly CloneRequest[], void, undefined> {
  for (let begin = 0, end = 0; begin < requests.length; begin = end) {
    const share = Math.ceil((requests.length - begin) / (2 * TRIPS));
    end = begin + Math.max(MIN_BATCH, Math.min(share, MAX_BATCH));
    yield requests.slice(begin, end);
  }
}
