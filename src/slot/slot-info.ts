// Describes a slot from its own files.
import type { SlotFacts } from '../addon/native.js';
import { isNobodys, isTorn, isUnstamped, unknownStamp } from './slot-state.js';
import { CLONE_ROOTFS_FILE, parseSizeStamp, parseStamp } from './stamps.js';

/**
 * `torn`: a crash or a power cut left it so; it is never handed out, and `recover` removes it. `unstamped`: an image
 * without a stamp, possibly somebody else's. `unknown`: a stamp holds something that this library can't read. Nothing
 * but `release` removes the last two.
 */
export type SlotHealth = 'whole' | 'torn' | 'unstamped' | 'unknown';

/** A slot in the clones folder, as its own files describe it. */
export interface SlotInfo {
  /** The slot's name: the id with every character outside `A-Za-z0-9_-` replaced. */
  readonly vmId: string;
  /** The raw id, as given to `cloneForVm`. */
  readonly rawId: string;
  /** The path of the image. */
  readonly path: string;
  readonly health: SlotHealth;
  /**
   * The stack that the slot was cloned from. If only the digest identifies it, the first stack with that digest.
   * Undefined if none is known.
   */
  readonly stack: string | undefined;
  /** The template's SHA-256 when the clone was made. Undefined if the slot is not complete. */
  readonly sourceSha256: string | undefined;
  /** The length of the image. */
  readonly sizeBytes: number;
  /** The image was grown to that length. */
  readonly grown: boolean;
  /** When the stamp was written. For a slot from the pool, when it was made ready. */
  readonly createdAt: Date;
}

/** Undefined if it is not a slot: absent, a file, or a folder of other things. `firstStack`: see {@link StackNames}. */
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
