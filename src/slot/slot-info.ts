// What a slot tells of itself.
import type { SlotFacts } from '../addon/native.js';
import { isNobodys, isTorn, isUnstamped, unknownStamp } from './slot-state.js';
import { CLONE_ROOTFS_FILE, parseSizeStamp, parseStamp } from './stamps.js';

/**
 * `torn`: a crash or a power cut left it so; it is never handed out, and `recover` removes it. `unstamped`: an image without a stamp, perhaps
 * somebody else's. `unknown`: a stamp holds something that this library can't read. Nothing but `release` removes the last two.
 */
export type SlotHealth = 'whole' | 'torn' | 'unstamped' | 'unknown';

/** A slot in the clones folder, as far as its own files tell. */
export interface SlotInfo {
  /** The sanitised id: the name of the slot's folder. */
  readonly vmId: string;
  /** The id as it was given to `cloneForVm`. */
  readonly rawId: string;
  /** The image. */
  readonly path: string;
  readonly health: SlotHealth;
  /** The stack that it was cloned of; where only the digest tells, the first that had it. Undefined if no stack is known to have had it. */
  readonly stack: string | undefined;
  /** The template's SHA-256 when the clone was made. Undefined in a slot that is not whole. */
  readonly sourceSha256: string | undefined;
  /** Length of the image. */
  readonly sizeBytes: number;
  /** It was grown to that length. */
  readonly grown: boolean;
  /** When its stamp was written: for a slot out of the pool, when it was made ready. */
  readonly createdAt: Date;
}

/** Undefined if it is no slot: absent, a foreign file, or a folder of other things. `firstStack`: see {@link StackNames}. */
export function slotInfo(
  clonesDir: string,
  slot: string,
  state: SlotFacts,
  firstStack: string | undefined,
): SlotInfo | undefined {
  const health = healthOf(state);
  if (health === undefined) return undefined;
  const { identity } = state.image ?? {};
  return {
    vmId: slot,
    rawId: state.rawId || slot,
    path: `${clonesDir}/${slot}/${CLONE_ROOTFS_FILE}`,
    health,
    stack: state.stack || firstStack,
    sourceSha256: parseStamp(state.stamp),
    sizeBytes: identity?.sizeBytes ?? 0,
    grown: parseSizeStamp(state.sizeStamp) !== undefined,
    createdAt: new Date(state.createdAtMs),
  };
}

function healthOf(state: SlotFacts): SlotHealth | undefined {
  if (state.kind !== 'folder') return undefined;
  if (isUnstamped(state)) return 'unstamped';
  if (unknownStamp(state) !== undefined) return 'unknown';
  if (isNobodys(state)) return undefined;
  return isTorn(state, () => undefined) ? 'torn' : 'whole';
}
