// The mark of a slot whose copied image has not reached the disk yet: see folder/flush-copies.ts.

import type { SlotFacts } from '../addon/native.js';
import { bootId } from '../system/boot-id.js';
import { CLONE_UNSETTLED_FILE } from './stamps.js';

/**
 * The file that marks a copied slot: name, contents. None where the boot has no id: a copy without a mark is flushed
 * before the slot appears.
 */
export function unsettledFile(): string[] {
  const id = bootId();
  return id === undefined ? [] : [CLONE_UNSETTLED_FILE, id];
}

/** Whether the machine may have gone down before the image had reached the disk. */
export function isOfAnotherBoot({ unsettled }: Pick<SlotFacts, 'unsettled'>): boolean {
  return unsettled !== undefined && bootId() !== undefined && unsettled !== bootId();
}

/** Whether this process cannot tell that, since `/proc` hides the id of this boot. Others may still be flushing it. */
export function isOfUnknownBoot({ unsettled }: Pick<SlotFacts, 'unsettled'>): boolean {
  return unsettled !== undefined && bootId() === undefined;
}
