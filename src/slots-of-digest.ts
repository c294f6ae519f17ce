import type { ClonesFolder } from './clones-folder.js';
import { checkAborted } from './long-work.js';
import { native } from './native.js';
import { slotNames } from './slot-names.js';
import { parseStamp } from './stamps.js';

/** The raw ids of all slots that were cloned from a template with this digest. Makes no clones folder. */
export async function slotsOfDigest(
  folder: ClonesFolder,
  sha256: string,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  const ids: string[] = [];
  for await (const slot of slotNames(folder.path)) {
    checkAborted(`looking for clones in ${folder.path}`, signal);
    const state = await folder.use(({ store }) => native().inspectSlot(store, slot));
    if (parseStamp(state.stamp) === sha256) ids.push(state.rawId ?? slot);
  }
  return ids;
}
