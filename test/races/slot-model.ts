// What calls do to slots, one after the other. Calls at once must look as if they had been made in some order.
import { safeVmId } from '../../src/index.js';
import { GROWN_BYTES, TEMPLATE_BYTES } from '../fixtures/growable.js';

export interface Call {
  readonly kind: 'clone' | 'grow' | 'release';
  readonly id: string;
}

export interface ModelSlot {
  readonly rawId: string;
  readonly sizeBytes: number;
  /** What its VM wrote. */
  readonly mark: number | undefined;
}

/** By folder name. */
export type ModelSlots = ReadonlyMap<string, ModelSlot>;

/** What a caller sees: `made 1048576`, `reused 2097152`, `released`, `nothing to release`, or the code of an error. */
export type Outcome = string;

export function apply(slots: ModelSlots, { kind, id }: Call): { slots: ModelSlots; outcome: Outcome } {
  const name = safeVmId(id);
  const slot = slots.get(name);
  if (slot !== undefined && slot.rawId !== id) return { slots, outcome: 'VM_ID_COLLISION' };
  if (kind === 'release') {
    if (slot === undefined) return { slots, outcome: 'nothing to release' };
    return { slots: without(slots, name), outcome: 'released' };
  }
  const sizeBytes = kind === 'grow' ? GROWN_BYTES : (slot?.sizeBytes ?? TEMPLATE_BYTES);
  const next = { rawId: id, sizeBytes, mark: slot?.mark };
  const outcome = `${slot === undefined ? 'made' : 'reused'} ${sizeBytes}`;
  return { slots: new Map(slots).set(name, next), outcome };
}

// To look at a slot others open its image for an instant: a grow is refused then, and changes nothing.
const REFUSED = ['SLOT_IN_USE', 'SLOT_BUSY'];

/** Every state that calls at once can have left, given what their callers saw; none if no order explains it. */
export function* explanations(
  slots: ModelSlots,
  calls: readonly Call[],
  outcomes: readonly Outcome[],
): Generator<ModelSlots> {
  if (calls.length === 0) yield slots;
  for (const [first, call] of calls.entries()) {
    const seen = outcomes[first] as Outcome;
    const refused = call.kind === 'grow' && REFUSED.includes(seen);
    const next = refused ? { slots, outcome: seen } : apply(slots, call);
    if (next.outcome !== seen) continue;
    const rest = <T>(all: readonly T[]) => all.filter((_, index) => index !== first);
    yield* explanations(next.slots, rest(calls), rest(outcomes));
  }
}

function without(slots: ModelSlots, name: string): ModelSlots {
  const rest = new Map(slots);
  rest.delete(name);
  return rest;
}
