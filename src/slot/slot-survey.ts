// Reads many slots at a time for a listing. The addon returns flat tables (SurveySlots in native/napi/slot_glue.cc),
// because building objects would take longer than reading the slots.

import { type NativeFolder, native, type SlotFacts, type SmallFile } from '../addon/native.js';
import type { SystemError } from '../system/errors.js';

const NUMBERS = 5;
const TEXTS = 6;
const KINDS = ['absent', 'folder', 'not-a-folder'] as const;

export async function surveySlots(
  handle: NativeFolder,
  slots: readonly string[],
): Promise<(SlotFacts | SystemError)[]> {
  const [numbers, texts] = await native().surveySlots(handle, slots);
  return slots.map((_, i) => {
    const number = (k: number) => numbers[i * NUMBERS + k] as number;
    const text = (k: number) => texts[i * TEXTS + k] as SmallFile;
    const first = texts[i * TEXTS];
    if (typeof first === 'object' && first !== null) return first;
    const regular = number(1);
    return {
      kind: KINDS[number(0)] ?? 'not-a-folder',
      ...(regular < 0 ? {} : { image: { regular: regular === 1, identity: { sizeBytes: number(2) } } }),
      hasSidecars: number(4) === 1,
      stamp: first,
      createdAtMs: number(3),
      sizeStamp: text(1),
      newSizeStamp: text(2),
      rawId: text(3),
      stack: text(4),
      unsettled: text(5),
    };
  });
}
