import { namesIn } from '../folder/names-in.js';

/** Names in the clones folder that a slot can have; none if there is no folder. Not all of them are slots. */
export function slotNames(clonesDir: string): Promise<string[]> {
  return namesIn(clonesDir, (name) => /^[A-Za-z0-9_-]+$/.test(name));
}
