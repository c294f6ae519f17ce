// What the property can do to the library, on two registries that know nothing of each other.
import { open } from 'node:fs/promises';
import fc from 'fast-check';
import { expect } from 'vitest';
import { RootfsError, type RootfsRegistry, safeVmId } from '../../src/index.js';
import { markBytes, type PristineImages } from '../fixtures/disk-states.js';
import { GROWN_BYTES, type Growable } from '../fixtures/growable.js';
import type { Host } from '../fixtures/host.js';
import { type Call, explanations, type ModelSlots, type Outcome } from './slot-model.js';
import { readWholeSlot } from './whole-slot.js';

export interface Model {
  slots: ModelSlots;
}

export interface Real {
  readonly host: Host;
  readonly registries: readonly RootfsRegistry[];
  readonly growable: Growable;
  readonly pristine: PristineImages;
  /** Counts the calls into the library. */
  readonly count: (calls: number) => void;
}

type Command = fc.AsyncCommand<Model, Real>;

// Two of them have the same folder name.
const IDS = ['vm-1', 'vm-2', 'a/b', 'a:b'];

/** Calls at once, each on one of the registries. One alone is a call like any other. */
class Calls implements Command {
  constructor(readonly calls: readonly (Call & { readonly registry: number })[]) {}

  check = () => true;

  async run(model: Model, real: Real): Promise<void> {
    const outcomes = await Promise.all(this.calls.map((call) => make(real, call)));
    real.count(this.calls.length);
    const left = [...explanations(model.slots, this.calls, outcomes)];
    expect(left.length, `an order of these calls explains ${outcomes.join(', ')}`).toBeGreaterThan(0);
    const found = await lookAtDisk(real);
    const explained = left.find((slots) => sameSlots(slots, found));
    expect(explained, `${outcomes.join(', ')} left ${JSON.stringify([...found])}`).toBeDefined();
    model.slots = explained as ModelSlots;
  }

  toString(): string {
    return this.calls.map(({ kind, id, registry }) => `${kind} ${id} (${registry})`).join(' beside ');
  }
}

class VmWrites implements Command {
  constructor(
    readonly id: string,
    readonly mark: number,
  ) {}

  check = ({ slots }: Readonly<Model>) => slots.has(safeVmId(this.id));

  async run(model: Model, { host, growable }: Real): Promise<void> {
    const name = safeVmId(this.id);
    const file = await open(host.slot(name).image, 'r+');
    await file.write(markBytes(this.mark), 0, undefined, growable.markOffset);
    await file.close();
    const slot = model.slots.get(name);
    if (slot !== undefined) model.slots = new Map(model.slots).set(name, { ...slot, mark: this.mark });
  }

  toString(): string {
    return `${this.id} writes ${this.mark}`;
  }
}

class Prewarm implements Command {
  constructor(
    readonly registry: number,
    readonly count: number,
    readonly grown: boolean,
  ) {}

  check = () => true;

  async run(_model: Model, { registries, count }: Real): Promise<void> {
    const options = { count: this.count, ...(this.grown ? { sizeBytes: GROWN_BYTES } : {}) };
    await registries[this.registry]?.prewarm('debian', options);
    count(1);
  }

  toString(): string {
    return `prewarm ${this.count}${this.grown ? ' grown' : ''} (${this.registry})`;
  }
}

class Recover implements Command {
  constructor(readonly registry: number) {}

  check = () => true;

  async run(model: Model, real: Real): Promise<void> {
    const report = await real.registries[this.registry]?.recover();
    real.count(1);
    expect(report).toMatchObject({ tornSlots: [], tornInUse: [], settledSlots: [], sealedRemoved: 0 });
    expect(sameSlots(model.slots, await lookAtDisk(real)), 'recover() leaves slots as they are').toBe(true);
  }

  toString(): string {
    return `recover (${this.registry})`;
  }
}

const registry = fc.nat(1);
const id = fc.constantFrom(...IDS);
const call = fc.record({
  kind: fc.constantFrom('clone', 'grow', 'release', 'clone', 'release'),
  id,
  registry,
});

export const COMMANDS: fc.Arbitrary<Command>[] = [
  fc.array(call, { minLength: 1, maxLength: 1 }).map((calls) => new Calls(calls as Calls['calls'])),
  fc.array(call, { minLength: 2, maxLength: 4 }).map((calls) => new Calls(calls as Calls['calls'])),
  fc.tuple(id, fc.nat(1000)).map(([id, mark]) => new VmWrites(id, mark)),
  fc.tuple(registry, fc.nat(2), fc.boolean()).map((args) => new Prewarm(...args)),
  registry.map((registry) => new Recover(registry)),
];

async function make({ registries }: Real, { kind, id, registry }: Calls['calls'][number]): Promise<Outcome> {
  const library = registries[registry] as RootfsRegistry;
  try {
    if (kind === 'release') return (await library.release(id)) ? 'released' : 'nothing to release';
    const size = kind === 'grow' ? { sizeBytes: GROWN_BYTES } : {};
    const { reused, sizeBytes } = await library.cloneForVm(id, 'debian', { writable: true, ...size });
    return `${reused ? 'reused' : 'made'} ${sizeBytes}`;
  } catch (error) {
    if (error instanceof RootfsError) return error.code;
    throw error;
  }
}

/** Every slot, each of whose bytes is right. */
async function lookAtDisk({ host, growable, pristine }: Real): Promise<ModelSlots> {
  const slots = new Map();
  for (const name of await host.slotNames()) {
    const { rawId, mark, sizeBytes } = await readWholeSlot(host, name, pristine, growable);
    slots.set(name, { rawId, sizeBytes, mark });
  }
  return slots;
}

function sameSlots(a: ModelSlots, b: ModelSlots): boolean {
  const text = (slots: ModelSlots) => JSON.stringify([...slots].sort(([x], [y]) => (x < y ? -1 : 1)));
  return text(a) === text(b);
}
