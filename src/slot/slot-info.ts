// Describes a slot from its own files.
import type { SlotFacts } from '../addon/native.js';
import type { StacksByDigest } from '../catalog/stacks-by-digest.js';
import type { TemplateBytes } from './slot-image.js';
import { isForeignFolder, isOddlyLong, isTorn, isUnstamped, unknownFile } from './slot-state.js';
import { CLONE_ROOTFS_FILE, parseSizeStamp, parseStamp } from './stamps.js';

/**
 * `torn`: a crash or a power cut left it so; it is never handed out, and `recover` removes it. `unstamped`: an image
 * without a stamp, possibly somebody else's. `unknown`: a stamp, a mark of a boot or the raw id holds something that
 * this library can't read, or the image is a symbolic link, a folder or a device. Nothing but `release` removes the
 * last two. `unknown` as well: the image is longer than its template, and no size stamp says so; asking for its size
 * makes it `whole`.
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
  /** The length of the image. One that is shorter than its stamps promise is `torn`. */
  readonly sizeBytes: number;
  /** The image was grown to that length. */
  readonly grown: boolean;
  /** When the stamp was written. For a slot from the pool, when it was made ready. */
  readonly createdAt: Date;
}

/** What is known, without reading it, of the template that a slot was cloned from. */
export interface SlotTemplate {
  /** See {@link StacksByDigest}. */
  readonly firstStack: string | undefined;
  readonly sizeBytes: number | undefined;
}

export interface KnownTemplates {
  readonly stacks: StacksByDigest;
  readonly templateBytes: TemplateBytes;
}

export async function templateOf(
  { stamp, stack }: SlotFacts,
  { stacks, templateBytes }: KnownTemplates,
): Promise<SlotTemplate> {
  const sha256 = parseStamp(stamp);
  if (sha256 === undefined) return { firstStack: undefined, sizeBytes: undefined };
  const firstStack = await stacks.firstWith(sha256);
  return { firstStack, sizeBytes: await templateBytes(sha256, stack || firstStack) };
}

/** What a Date can hold. A file on btrfs or tmpfs can have a time far beyond it. */
const DATE_LIMIT_MS = 8.64e15;

/** Undefined if it is not a slot: absent, a file, or a folder of other things. */
export function slotInfo(
  clonesDir: string,
  slot: string,
  state: SlotFacts,
  template: SlotTemplate,
): SlotInfo | undefined {
  const health = healthOf(state, template.sizeBytes);
  if (health === undefined) return undefined;
  const { identity } = state.image ?? {};
  return {
    vmId: slot,
    rawId: state.rawId || slot,
    path: `${clonesDir}/${slot}/${CLONE_ROOTFS_FILE}`,
    health,
    stack: state.stack || template.firstStack,
    sourceSha256: parseStamp(state.stamp),
    sizeBytes: identity?.sizeBytes ?? 0,
    grown: parseSizeStamp(state.sizeStamp) !== undefined,
    createdAt: new Date(Math.min(Math.max(state.createdAtMs, -DATE_LIMIT_MS), DATE_LIMIT_MS)),
  };
}

/** Undefined if it is not a slot. `templateBytes`: the length of its template, if known. */
export function healthOf(state: SlotFacts, templateBytes: number | undefined): SlotHealth | undefined {
  if (state.kind !== 'folder') return undefined;
  if (isUnstamped(state)) return 'unstamped';
  if (unknownFile(state) !== undefined) return 'unknown';
  if (isForeignFolder(state)) return undefined;
  if (isTorn(state, () => templateBytes)) return 'torn';
  return isOddlyLong(state, templateBytes) ? 'unknown' : 'whole';
}
