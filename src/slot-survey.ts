// Many slots at a time, for listing them: as tables rather than objects, which take longer to pass on than slots take to be read.
import type { SystemError } from './errors.js';
import { type NativeStore, native, type SlotFacts, type SmallFile } from './native.js';

const NUMBERS = 7;
const TEXTS = 7;
const KINDS = ['absent', 'folder', 'foreign'] as const;

export async function surveySlots(
  store: NativeStore,
  slots: readonly string[],
): Promise<(SlotFacts | SystemError)[]> {
  const [numbers, texts] = await native().surveySlots(store, slots);
  return slots.map((_, i) => {
    const number = (k: number) => numbers[i * NUMBERS + k] as number;
    const text = (k: number) => texts[i * TEXTS + k] as SmallFile;
    const first = texts[i * TEXTS];
    if (typeof first === 'object' && first !== null) return first;
    const regular = number(1);
    const links = number(3);
    // The inode number counts only where there are several names.
    const inode = links > 1 ? BigInt(text(6) ?? 0) : 0n;
    return {
      kind: KINDS[number(0)] ?? 'foreign',
      ...(regular < 0
        ? {}
        : { image: { regular: regular === 1, identity: { sizeBytes: number(2), links, inode } } }),
      folder: { mtimeNs: BigInt(number(6)) * 1_000_000n },
      sharesExtents: number(4) === 1,
      stamp: first,
      stampedAtMs: number(5),
      sizeStamp: text(1),
      newSizeStamp: text(2),
      rawId: text(3),
      stack: text(4),
      exported: text(5),
    };
  });
}
