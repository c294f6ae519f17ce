// Our own folder in the clones folder, in the catalog and in the folder of snapshots.

/** No stack and no slot can have a name that starts with a dot. */
export const STATE_FOLDER = '.microvm-rootfs';

/** In our own folder of the clones folder: where snapshots are unless `snapshotsDir` is set. */
export const DEFAULT_SNAPSHOTS_FOLDER = 'snapshots';
