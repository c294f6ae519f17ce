// Marks on the files of a layer, and of a tree whose owners are kept elsewhere: what lies there is not what a guest is
// meant to see.
import type { Attribute } from './file-tree.js';

/** How whiteouts of container images, AUFS and fuse-overlayfs begin. They are empty files. */
export const WHITEOUT_PREFIX = '.wh.';

// What overlayfs hides or leaves to the lower layers is not in its upper folder.
const OF_AN_UPPER_FOLDER =
  /^((trusted|user)\.overlay|user\.fuseoverlayfs)\.(whiteout|opaque|redirect|metacopy)$/;

// Those who may not change owners write them here: containers-storage, fuse-overlayfs, umoci and PRoot.
const REAL_OWNER = /^user\.((containers|fuseoverlayfs)\.override_stat|rootlesscontainers)$/;

// Where Docker, podman, containerd and BuildKit keep layers, each in a folder that can be set.
const STORED_LAYER =
  /\/(overlay2?\/[^/]+\/(diff|upper|work)|aufs\/diff\/[^/]+|vfs\/dir\/[^/]+|snapshots\/[^/]+\/(fs|work))(\/|$)/;

/**
 * Whether a file lies in the storage of a container engine that the guest has: there marks are the engine's own. The
 * path begins with a slash, at the root of the tree.
 */
export function isOfStoredLayer(path: string): boolean {
  return STORED_LAYER.test(path);
}

/** Whether a file of this name and size hides one of a layer below. */
export function isWhiteoutFile(name: string, sizeBytes: number): boolean {
  return sizeBytes === 0 && name.startsWith(WHITEOUT_PREFIX);
}

/** Whether overlayfs has marked the file as one that means something only with the layers below. */
export function isOfUpperFolder(attributes: readonly Attribute[]): boolean {
  return attributes.some(({ name }) => OF_AN_UPPER_FOLDER.test(name));
}

/** The attributes that an engine needs in its own storage. */
export function layerMarks(attributes: readonly Attribute[]): Attribute[] {
  return attributes.filter(({ name }) => OF_AN_UPPER_FOLDER.test(name) || REAL_OWNER.test(name));
}

/** What is wrong with a file whose owner and mode are another's, worded to follow its name. */
export function realOwnerElsewhere(attributes: readonly Attribute[]): string | undefined {
  const found = attributes.find(({ name }) => REAL_OWNER.test(name));
  if (found === undefined) return undefined;
  return (
    `has its real owner and mode in the attribute ${found.name}: publish the tree as its container sees it, as ` +
    'podman export writes it'
  );
}
