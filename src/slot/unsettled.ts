// The mark of a slot whose copied image has not reached the disk yet: see folder/flush-copies.ts.

import type { SlotFacts, SmallFile } from '../addon/native.js';
import { bootId, parseBootId } from '../system/boot-id.js';
import { CLONE_UNSETTLED_FILE, isEmptied } from './stamps.js';

/**
 * The file that marks a copied slot: name, contents. None where the boot has no id: a copy without a mark is flushed
 * before the slot appears.
 */
export function unsettledFile(): string[] {
  const id = bootId();
  return id === undefined ? [] : [CLONE_UNSETTLED_FILE, id];
}

type Mark = Pick<SlotFacts, 'unsettled'>;

/**
 * Whether the machine may have gone down before the image had reached the disk. A mark is written before the slot
 * appears, is not flushed before the image, and goes once that is flushed. A power cut empties a file whose bytes it
 * lost, and may have lost the image with them: so an empty mark counts as another boot's. A power cut writes no text,
 * so any other text is somebody else's.
 */
export function isOfAnotherBoot({ unsettled }: Mark): boolean {
  if (unsettled === undefined || isNoMark(unsettled) || bootId() === undefined) return false;
  return parseBootId(unsettled) !== bootId();
}

/** Whether this process cannot know that, since `/proc` hides the id of this boot. Others may still be flushing it. */
export function isOfUnknownBoot({ unsettled }: Mark): boolean {
  return unsettled !== undefined && bootId() === undefined;
}

/** Whether a mark holds something that neither this library writes nor a power cut leaves. */
export function isNoMark(unsettled: SmallFile): boolean {
  return unsettled !== undefined && !isEmptied(unsettled) && parseBootId(unsettled) === undefined;
}
