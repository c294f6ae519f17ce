// Whether a slot's image is somebody else's file as well. A link count alone says nothing of that: a jail, a backup or
// an operator may have given the image another name.

import { type Identity, sameFile } from '../addon/identity.js';
import { type NativeFolder, native, type SlotState } from '../addon/native.js';

/** `template`: a guest that writes to the image changes a template. `slot`: it changes the disk of another VM. */
export type Sharer = 'nobody' | 'template' | 'slot';

/** As far as it can be told without looking at other files; undefined if it cannot. */
export function knownSharer(
  { image, exported }: SlotState,
  template: Identity | undefined,
): Sharer | undefined {
  if (image === undefined) return 'nobody';
  if (template !== undefined && sameFile(image.identity, template)) return 'template';
  const onlyExported = exported?.trim() === `${image.identity.inode}`;
  return image.identity.links === 1 || onlyExported ? 'nobody' : undefined;
}

export async function findSharer(
  handle: NativeFolder,
  slot: string,
  state: SlotState,
  template: Identity | undefined,
  templateDir: string,
): Promise<Sharer> {
  const known = knownSharer(state, template);
  if (known !== undefined || state.image === undefined) return known ?? 'nobody';
  return native().findSharedImage(handle, slot, state.image.identity, templateDir);
}
