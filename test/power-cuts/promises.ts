// What the library has promised of each slot so far, and so what may be found after a cut at this moment.
import { ABSENT, type DiskState, keyOf, type StateKey } from '../fixtures/disk-states.js';

/** Of one slot, if the power is cut now. */
export interface Promised {
  readonly stack: string;
  /** Whole disks, or none, that may be there. */
  readonly possible: ReadonlySet<StateKey>;
  /** A call without `durable` has made or changed the slot: what is there may be torn, but must not be handed out. */
  readonly mayBeTorn: boolean;
}

export class Promises {
  readonly #slots = new Map<string, Promised>();

  /** A call is under way that will leave the slot like this: from now on either is fine. */
  begin(id: string, stack: string, next: DiskState | undefined, durable: boolean): void {
    const { possible, mayBeTorn } = this.#of(id, stack);
    const tears = next !== undefined && !durable;
    this.#slots.set(id, {
      stack,
      possible: new Set([...possible, stateKey(next)]),
      mayBeTorn: mayBeTorn || tears,
    });
  }

  /** It has resolved. Without `durable` that promises nothing. */
  resolved(id: string, stack: string, now: DiskState | undefined, durable: boolean): void {
    if (durable) this.#slots.set(id, { stack, possible: new Set([stateKey(now)]), mayBeTorn: false });
  }

  /** The VM wrote to its disk and flushed that: as durable as the slot is itself. */
  written(id: string, stack: string, before: DiskState, now: DiskState): void {
    const { possible, mayBeTorn } = this.#of(id, stack);
    const others = [...possible].filter((key) => key !== keyOf(before));
    this.#slots.set(id, { stack, possible: new Set([...others, keyOf(now)]), mayBeTorn });
  }

  now(): Map<string, Promised> {
    return new Map(this.#slots);
  }

  #of(id: string, stack: string): Promised {
    return this.#slots.get(id) ?? { stack, possible: new Set([ABSENT]), mayBeTorn: false };
  }
}

function stateKey(state: DiskState | undefined): StateKey {
  return state === undefined ? ABSENT : keyOf(state);
}
