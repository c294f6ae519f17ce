// Our own folder in the clones folder, in the catalog and in the folder of snapshots.

/** No stack and no slot can have a name that starts with a dot. */
export const STATE_FOLDER = '.microvm-rootfs';

/** In our own folder: where things are made, and where they wait to be deleted. */
export const STAGING_FOLDER = 'staging';
export const TRASH_FOLDER = 'trash';

/** In our own folder of the clones folder: sealed images and ready slots. */
export const SEALED_FOLDER = 'sealed';
export const POOL_FOLDER = 'pool';

/** In our own folder of the clones folder: where snapshots are unless `snapshotsDir` is set. */
export const DEFAULT_SNAPSHOTS_FOLDER = 'snapshots';

/**
 * Every name that this or an earlier version gives to something in our own folder. What has another one is somebody
 * else's.
 */
const ENTRIES: readonly string[] = [
  STAGING_FOLDER,
  TRASH_FOLDER,
  SEALED_FOLDER,
  POOL_FOLDER,
  'spare',
  'release.lock',
  'replace.lock',
  'digests',
  'digests.json',
  'stacks',
  DEFAULT_SNAPSHOTS_FOLDER,
  'pulls',
  'chunks',
  'disks',
];

/** Whether a name in our own folder is ours. */
export function isStateEntry(name: string): boolean {
  return ENTRIES.includes(name) || isOwnName(name);
}

// What a command or an export has there for a moment, or what a killed one left.
const OWN_NAME = /^\.microvm-rootfs(-[0-9a-f]{1,16}\.tmp|-scratch-\w{6}|-probe|-probe-reflink)?$/;

/** Whether a name in a folder that has our own is ours. */
export function isOwnName(name: string): boolean {
  return OWN_NAME.test(name);
}
