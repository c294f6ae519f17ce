// The writer: a random history of calls to the library, with what VMs and the kernel do meanwhile, and the power cut
// now and then.
import { open } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { RootfsRegistry, safeVmId } from '../../src/index.js';
import { type DiskState, markBytes } from '../fixtures/disk-states.js';
import { walk } from '../fixtures/files.js';
import { GROWN_BYTES } from '../fixtures/growable.js';
import type { Random } from '../fixtures/random.js';
import type { CutDisk } from './cut-disk.js';
import { DERIVED_STEPS, Derived, type DerivedStep, type Parent } from './derived.js';
import type { CutHost, Stack } from './host.js';
import { type PromisedThing, PromisedThings } from './promised-things.js';
import { type Promised, Promises } from './promises.js';

/** What the disk held when the power went, and what had been promised of it by then. */
export interface Cut {
  readonly copy: string;
  readonly promised: ReadonlyMap<string, Promised>;
  /** The same of snapshots, stacks and exported images. */
  readonly things: ReadonlyMap<string, PromisedThing>;
  /** The calls so far, the last one under way or just resolved. */
  readonly story: readonly string[];
}

const IDS = ['vm-0', 'vm-1', 'vm-2', 'vm/3', 'vm:4'];

// The longest of the calls, growing, takes about 20 ms here.
const LONGEST_WAIT_MS = 20;

const STEPS = {
  clone: 5,
  cloneGrown: 3,
  grow: 3,
  again: 2,
  release: 3,
  vmWrites: 2,
  somethingFlushes: 5,
  prewarm: 1,
  pack: 1,
  replaceTemplate: 1,
  cloneChanging: 2,
  recover: 1,
  fork: 2,
  restore: 2,
  gc: 1,
  ...DERIVED_STEPS,
} as const;

export class History {
  readonly #registry: RootfsRegistry;
  readonly #promises = new Promises();
  readonly #things = new PromisedThings();
  readonly #derived: Derived;
  readonly #live = new Map<string, DiskState & { stack: Stack }>();
  readonly #story: string[] = [];
  readonly #cuts: Cut[] = [];
  #counter = 0;
  #changing: string;

  constructor(
    readonly disk: CutDisk,
    readonly host: CutHost,
    readonly random: Random,
    /** How many of the calls ask for `durable`. */
    readonly durableShare: number,
  ) {
    this.#registry = new RootfsRegistry(host.config);
    this.#changing = host.digestOf('changing');
    this.#derived = new Derived(this.#registry, host, random, this.#things, (what, work) =>
      this.#during(what, work),
    );
  }

  async run(steps: number): Promise<Cut[]> {
    try {
      for (let i = 0; i < steps; i++) await this.#step();
    } finally {
      await this.#registry.close();
    }
    return this.#cuts;
  }

  #step(): Promise<void> {
    const durable = this.random.chance(this.durableShare);
    const free = this.random.pick(IDS);
    const id = this.#live.has(free) ? undefined : free;
    const held = this.#live.size === 0 ? undefined : this.random.pick([...this.#live.keys()]);
    const step = this.random.weighted(STEPS);
    switch (step) {
      case 'clone':
        return id === undefined
          ? this.#somethingFlushes()
          : this.#clone(id, this.random.pick(['ext4', 'scattered']), durable);
      case 'cloneGrown':
        return id === undefined ? this.#somethingFlushes() : this.#clone(id, 'ext4', durable, GROWN_BYTES);
      case 'grow':
        return this.#grow(held, durable);
      case 'again':
        return held === undefined ? this.#somethingFlushes() : this.#again(held, durable);
      case 'release':
        return held === undefined ? this.#somethingFlushes() : this.#release(held, durable);
      case 'vmWrites':
        return this.#vmWrites(held);
      case 'somethingFlushes':
        return this.#somethingFlushes();
      case 'prewarm':
        return this.#during('prewarm', () => this.#registry.prewarm('ext4', this.#prewarmOptions()));
      case 'pack':
        return this.#during('pack', () =>
          this.#registry.prewarm('scattered', { count: 0, writable: true, pack: true }),
        );
      case 'replaceTemplate':
        return this.#replaceTemplate();
      case 'cloneChanging':
        return this.#clone(`c-${this.#counter++}`, 'changing', durable);
      case 'recover':
        return this.#during('recover', () => this.#registry.recover());
      case 'fork':
        return this.#fork(held, id, durable);
      case 'restore':
        return this.#restore(id, durable);
      case 'gc':
        return this.#collect(held);
      default:
        return this.#derive(step, held, durable);
    }
  }

  async #clone(id: string, stack: Stack, durable: boolean, grownTo?: number): Promise<void> {
    const sha256 = stack === 'changing' ? this.#changing : this.host.digestOf(stack);
    const next = { sha256, sizeBytes: grownTo ?? this.host.templateBytes(stack), mark: undefined };
    // A guest that only reads gets a hardlink where nothing better is to be had.
    const writable = stack !== 'changing' || this.random.chance(0.5);
    const what = `clone ${id} of ${stack}${grownTo === undefined ? '' : ', grown'}${writable ? '' : ', read-only'}`;
    await this.#call(what, id, stack, next, durable, () =>
      this.#registry.cloneForVm(id, stack, {
        writable,
        durable,
        ...(grownTo === undefined ? {} : { sizeBytes: grownTo }),
      }),
    );
    this.#live.set(id, { ...next, stack });
  }

  async #grow(id: string | undefined, durable: boolean): Promise<void> {
    const disk = id === undefined ? undefined : this.#live.get(id);
    if (id === undefined || disk?.stack !== 'ext4' || this.#derived.isExported(id))
      return this.#somethingFlushes();
    const next = { ...disk, sizeBytes: GROWN_BYTES };
    await this.#call(`grow ${id}`, id, 'ext4', next, durable, () =>
      this.#registry.cloneForVmWithSize(id, 'ext4', GROWN_BYTES, { writable: true, durable }),
    );
    this.#live.set(id, next);
  }

  async #again(id: string, durable: boolean): Promise<void> {
    const disk = this.#live.get(id) as DiskState & { stack: Stack };
    if (disk.stack === 'changing') return this.#somethingFlushes();
    await this.#call(`clone ${id} again`, id, disk.stack, disk, durable, () =>
      this.#registry.cloneForVm(id, disk.stack, { writable: true, durable }),
    );
  }

  async #release(id: string, durable: boolean): Promise<void> {
    const { stack } = this.#live.get(id) as { stack: Stack };
    await this.#call(`release ${id}`, id, stack, undefined, durable, () =>
      this.#registry.release(id, { durable }),
    );
    this.#live.delete(id);
  }

  async #fork(from: string | undefined, id: string | undefined, durable: boolean): Promise<void> {
    const parent = this.#parent(from);
    if (parent === undefined || id === undefined) return this.#somethingFlushes();
    await this.#call(`fork ${parent.id} to ${id}`, id, 'ext4', parent.disk, durable, () =>
      this.#registry.forkSlot(parent.id, id, { durable }),
    );
    this.#live.set(id, { ...parent.disk, stack: 'ext4' });
  }

  async #restore(id: string | undefined, durable: boolean): Promise<void> {
    const snapshot = this.#derived.anySnapshot();
    if (snapshot === undefined || id === undefined) return this.#somethingFlushes();
    const { name, disk } = snapshot;
    await this.#call(`restore ${name} to ${id}`, id, 'ext4', disk, durable, () =>
      this.#registry.restoreSnapshot(name, id, { durable }),
    );
    this.#live.set(id, { ...disk, stack: 'ext4' });
  }

  /** Of one slot, which nobody wants any more. */
  async #collect(held: string | undefined): Promise<void> {
    if (held === undefined) return this.#somethingFlushes();
    const { stack } = this.#live.get(held) as { stack: Stack };
    const keep = [...this.#live.keys()].filter((id) => id !== held);
    await this.#call(`gc of ${held}`, held, stack, undefined, false, () => this.#registry.gc({ keep }));
    this.#live.delete(held);
  }

  async #derive(step: DerivedStep, held: string | undefined, durable: boolean): Promise<void> {
    if (!(await this.#derived.step(step, this.#parent(held), durable))) await this.#somethingFlushes();
  }

  #parent(id: string | undefined): Parent | undefined {
    const disk = id === undefined ? undefined : this.#live.get(id);
    return id === undefined || disk?.stack !== 'ext4' ? undefined : { id, disk };
  }

  /** Into its own disk, and flushes it. */
  async #vmWrites(id: string | undefined): Promise<void> {
    const disk = id === undefined ? undefined : this.#live.get(id);
    if (id === undefined || disk?.stack !== 'ext4' || this.#derived.isExported(id))
      return this.#somethingFlushes();
    const mark = this.#counter++;
    const next = { ...disk, mark };
    this.#promises.begin(safeVmId(id), disk.stack, next, true);
    await this.#during(`${id} writes ${mark} and flushes`, async () => {
      const file = await open(this.host.image(safeVmId(id)), 'r+');
      try {
        await file.write(markBytes(mark), 0, undefined, this.host.markOffset('ext4'));
        await file.sync();
      } finally {
        await file.close();
      }
    });
    this.#promises.written(safeVmId(id), disk.stack, disk, next);
    this.#live.set(id, next);
  }

  /**
   * The kernel writes back any file at any time, in any order, and so does any program that flushes one: whatever is
   * chosen, no image may be taken for whole that is not.
   */
  async #somethingFlushes(): Promise<void> {
    const chosen = this.random.pick(
      (await walk(this.host.path)).filter((path) => !path.includes('lost+found')),
    );
    await this.#during(`something flushes ${chosen.slice(this.host.path.length)}`, async () => {
      const file = await open(chosen, 'r').catch(() => undefined); // gone: a sweep behind us was faster
      await file?.sync();
      await file?.close();
    });
  }

  #prewarmOptions() {
    return this.random.chance(0.5) ? { count: 2 } : { count: 2, sizeBytes: GROWN_BYTES };
  }

  async #replaceTemplate(): Promise<void> {
    const flushed = this.random.chance(0.5);
    await this.#during(`replace changing${flushed ? '' : ', not flushed'}`, async () => {
      this.#changing = await this.host.replaceChanging(this.#counter++, flushed);
    });
  }

  async #call(
    what: string,
    id: string,
    stack: Stack,
    next: DiskState | undefined,
    durable: boolean,
    work: () => Promise<unknown>,
  ): Promise<void> {
    this.#promises.begin(safeVmId(id), stack, next, durable);
    await this.#during(`${what}${durable ? ', durable' : ''}`, () =>
      work().then(() => this.#promises.resolved(safeVmId(id), stack, next, durable)),
    );
  }

  /** Cuts the power at random moments of the work, and mostly once it is done. */
  async #during(what: string, work: () => Promise<unknown>): Promise<void> {
    this.#story.push(what);
    let pending = true;
    const done = work().finally(() => {
      pending = false;
    });
    done.catch(() => {}); // thrown below
    for (let cuts = this.random.below(3); cuts > 0 && pending; cuts--) {
      // Short waits more often: most calls take less than a millisecond.
      const until = performance.now() + LONGEST_WAIT_MS * this.random.fraction() ** 4;
      while (pending && performance.now() < until) await nextTurn();
      if (pending) this.#cut('under way');
    }
    await done;
    if (this.random.chance(0.6)) this.#cut('done');
  }

  #cut(when: string): void {
    const story = [...this.#story.slice(0, -1), `${this.#story.at(-1)} (${when})`];
    this.#cuts.push({
      copy: this.disk.cut(),
      promised: this.#promises.now(),
      things: this.#things.now(),
      story,
    });
  }
}
