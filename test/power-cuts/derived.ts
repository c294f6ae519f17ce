// The part of a history that is about what is made of slots: forks, snapshots, stacks and exported images.
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { RootfsRegistry } from '../../src/index.js';
import type { DiskState } from '../fixtures/disk-states.js';
import type { Random } from '../fixtures/random.js';
import type { CutHost } from './host.js';
import type { PromisedThings } from './promised-things.js';

export const DERIVED_STEPS = {
  snapshot: 2,
  removeSnapshot: 1,
  publish: 2,
  commit: 2,
  removeStack: 1,
  exportTo: 2,
  removeExport: 1,
} as const;

export type DerivedStep = keyof typeof DERIVED_STEPS;

/** A slot that something can be made of. */
export interface Parent {
  readonly id: string;
  readonly disk: DiskState;
}

export class Derived {
  readonly #registry: RootfsRegistry;
  readonly #host: CutHost;
  readonly #random: Random;
  readonly #things: PromisedThings;
  readonly #during: (what: string, work: () => Promise<unknown>) => Promise<void>;
  readonly #snapshots = new Map<string, DiskState>();
  readonly #stacks = new Map<string, DiskState>();
  readonly #exports = new Map<string, string>();
  #counter = 0;

  constructor(
    registry: RootfsRegistry,
    host: CutHost,
    random: Random,
    things: PromisedThings,
    during: (what: string, work: () => Promise<unknown>) => Promise<void>,
  ) {
    this.#registry = registry;
    this.#host = host;
    this.#random = random;
    this.#things = things;
    this.#during = during;
  }

  /** Its slot's image has another name, so what is done to one is done to both. */
  isExported(id: string): boolean {
    return [...this.#exports.values()].includes(id);
  }

  /** One to restore. */
  anySnapshot(): { name: string; disk: DiskState } | undefined {
    if (this.#snapshots.size === 0) return undefined;
    const [name, disk] = this.#random.pick([...this.#snapshots]);
    return { name, disk };
  }

  /** False if there is nothing to do it to. */
  async step(step: DerivedStep, parent: Parent | undefined, durable: boolean): Promise<boolean> {
    switch (step) {
      case 'snapshot':
        return parent !== undefined && this.#snapshot(parent);
      case 'removeSnapshot':
        return this.#removeSnapshot();
      case 'publish':
        return this.#publish();
      case 'commit':
        return parent !== undefined && this.#commit(parent);
      case 'removeStack':
        return this.#removeStack();
      case 'exportTo':
        return parent !== undefined && this.#exportTo(parent, durable);
      case 'removeExport':
        return this.#removeExport();
    }
  }

  async #snapshot({ id, disk }: Parent): Promise<boolean> {
    const name = `s-${this.#counter++}`;
    await this.#thing(`snapshot ${name}`, disk, true, `snapshot ${name} of ${id}`, () =>
      this.#registry.snapshotSlot(id, name),
    );
    this.#snapshots.set(name, disk);
    return true;
  }

  async #removeSnapshot(): Promise<boolean> {
    const name = this.anySnapshot()?.name;
    if (name === undefined) return false;
    // Not flushed, as a release is not.
    await this.#thing(`snapshot ${name}`, undefined, false, `remove snapshot ${name}`, () =>
      this.#registry.removeSnapshot(name),
    );
    this.#snapshots.delete(name);
    return true;
  }

  async #publish(): Promise<boolean> {
    const sha256 = this.#host.digestOf('ext4');
    const disk = { sha256, sizeBytes: this.#host.templateBytes('ext4'), mark: undefined };
    return this.#placeStack(disk, 'publish', (name, replace) =>
      this.#registry.publishStack(name, this.#host.templatePath('ext4'), { replace }),
    );
  }

  async #commit({ id, disk }: Parent): Promise<boolean> {
    return this.#placeStack(disk, `commit ${id} as`, (name, replace) =>
      this.#registry.commitSlot(id, name, { replace }),
    );
  }

  async #placeStack(
    disk: DiskState,
    what: string,
    place: (name: string, replace: boolean) => Promise<unknown>,
  ): Promise<boolean> {
    const replace = this.#stacks.size > 0 && this.#random.chance(0.5);
    const name = replace ? this.#random.pick([...this.#stacks.keys()]) : `p-${this.#counter++}`;
    await this.#thing(`stack ${name}`, disk, true, `${what} ${name}${replace ? ' again' : ''}`, () =>
      place(name, replace),
    );
    this.#stacks.set(name, disk);
    return true;
  }

  async #removeStack(): Promise<boolean> {
    if (this.#stacks.size === 0) return false;
    const name = this.#random.pick([...this.#stacks.keys()]);
    await this.#thing(`stack ${name}`, undefined, true, `remove stack ${name}`, () =>
      this.#registry.removeStack(name, { force: true }),
    );
    this.#stacks.delete(name);
    return true;
  }

  async #exportTo({ id, disk }: Parent, durable: boolean): Promise<boolean> {
    const name = `e-${this.#counter++}`;
    await mkdir(this.#host.jail, { recursive: true });
    await this.#thing(`export ${name}`, disk, durable, `export ${id} as ${name}`, () =>
      this.#registry.exportTo(id, join(this.#host.jail, name), { durable }),
    );
    this.#exports.set(name, id);
    return true;
  }

  /** By whoever asked for it, who flushes nothing. */
  async #removeExport(): Promise<boolean> {
    if (this.#exports.size === 0) return false;
    const name = this.#random.pick([...this.#exports.keys()]);
    await this.#thing(`export ${name}`, undefined, false, `${name} is removed`, () =>
      rm(join(this.#host.jail, name)),
    );
    this.#exports.delete(name);
    return true;
  }

  async #thing(
    thing: string,
    next: DiskState | undefined,
    durable: boolean,
    what: string,
    work: () => Promise<unknown>,
  ): Promise<void> {
    this.#things.begin(thing, next, durable);
    await this.#during(`${what}${durable ? ', durable' : ''}`, () =>
      work().then(() => this.#things.resolved(thing, next, durable)),
    );
  }
}
