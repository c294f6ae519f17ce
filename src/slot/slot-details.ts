// Collects the facts about one slot.

import type { StacksByDigest } from '../catalog/stacks-by-digest.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { measureFile } from '../image/extents.js';
import { asRootfsError } from '../system/errors.js';
import { inTurn } from '../system/long-work.js';
import type { Strategy } from '../system/strategy.js';
import { Task } from '../system/task.js';
import { lookAtSlot } from './look-at-slot.js';
import type { TemplateBytes } from './slot-image.js';
import { type SlotInfo, slotInfo, templateOf } from './slot-info.js';
import { requireOwnId, strategyOf } from './slot-state.js';
import { imageInUse, type SlotUse } from './slot-use.js';
import type { VmId } from './vm-id.js';

export interface SlotDetails extends SlotInfo {
  /**
   * How its image was made, as far as the disk shows. A reflink whose guest has rewritten everything looks like a copy.
   */
  readonly strategy: Strategy;
  readonly use: SlotUse;
  /**
   * Whether its stack has other bytes in the catalog by now, or is gone from there. Undefined if the stack or the
   * template's current digest is not known.
   */
  readonly outdated: boolean | undefined;
  /** Bytes on disk that only its image holds: releasing it frees this much. */
  readonly aloneBytes: number;
  /** Bytes on disk that its image shares with others. */
  readonly sharedBytes: number;
  /**
   * The extents that its image lies in. Forking, snapshotting, restoring and exporting it by reflink costs about 10 µs
   * for each. Undefined where the file system does not tell.
   */
  readonly extents: number | undefined;
}

/** The current digest of a stack's template. Null if there is none, undefined if it is not known. */
export type DigestNow = (stack: string) => Promise<string | null | undefined>;

export async function slotDetails(
  folder: ManagedFolder,
  stacks: StacksByDigest,
  digestNow: DigestNow,
  templateBytes: TemplateBytes,
  vm: VmId,
): Promise<SlotDetails | undefined> {
  const path = `${folder.path}/${vm.safe}`;
  try {
    const state = await lookAtSlot(folder, vm);
    if (state === undefined) return undefined;
    const template = await templateOf(state, { stacks, templateBytes });
    const info = slotInfo(folder.path, vm.safe, state, template);
    if (info === undefined) return undefined;
    const hasReadableId = state.rawId !== null && state.rawId !== '';
    if (hasReadableId && ['whole', 'unknown'].includes(info.health)) requireOwnId(path, vm, state);
    // Not while it is asked whether the image is in use: measuring it opens it.
    const blocks = await blocksOf(info.path);
    const [use, now] = await Promise.all([
      imageInUse(path),
      info.stack === undefined ? undefined : digestNow(info.stack),
    ]);
    const outdated = now === undefined ? undefined : now !== info.sourceSha256;
    return { ...info, strategy: strategyOf(state), use, outdated, ...blocks };
  } catch (error) {
    throw asRootfsError(`looking at ${path}`, error);
  }
}

async function blocksOf(image: string): Promise<Pick<SlotDetails, 'aloneBytes' | 'sharedBytes' | 'extents'>> {
  const task = new Task(`measuring ${image}`, undefined);
  const { aloneBytes = 0, sharedBytes = 0, extents } = (await inTurn(task, () => measureFile(image))) ?? {};
  return { aloneBytes, sharedBytes, extents };
}
