// Makes a snapshot in staging. All files are copied before any is hashed, because the VM is paused until they are
// copied.
import { rename } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Identity } from '../addon/identity.js';
import { type NativeSource, native } from '../addon/native.js';
import { openFileOf } from '../folder/guarded-path.js';
import { type CopiedFile, copyFile, type Destination } from '../image/file-copy.js';
import { requireUnchanged, type SlotImage } from '../slot/slot-image.js';
import { CLONE_ROOTFS_FILE } from '../slot/stamps.js';
import { show } from '../system/arguments.js';
import { isTaken, RootfsError } from '../system/errors.js';
import { flush, writeFlushed } from '../system/flush.js';
import type { Task } from '../system/task.js';
import { closeAll, hashAll, type Watched } from './snapshot-files.js';
import { fitInManifest, SNAPSHOT_MANIFEST_FILE, type SnapshotFile, unfitName } from './snapshot-manifest.js';

/** An open file that goes into the snapshot. */
export interface SnapshotSource {
  readonly name: string;
  readonly source: NativeSource;
  readonly identity: Identity;
}

// More than any guest's memory. A VMM can make a file of holes a petabyte long, and hashing it would take weeks.
export const FILE_BYTES_LIMIT = 2 ** 40;

const READ_ONLY = { owner: undefined, mode: 0o400 };

/** Throws `INVALID_ARGUMENT` if the files cannot share one folder with each other and the disk. */
export function requireNames(others: readonly string[]): void {
  const names = [CLONE_ROOTFS_FILE, ...others.map((file) => basename(file))];
  if (!fitInManifest(names))
    throw new RootfsError(
      'INVALID_ARGUMENT',
      `a snapshot cannot hold ${names.length} files with names of that length: put them into an archive`,
    );
  const wrong = unfitName(names);
  if (wrong === undefined) return;
  throw new RootfsError(
    'INVALID_ARGUMENT',
    `a snapshot cannot hold a file named ${show(wrong)}: names must differ from each other and from ` +
      `${CLONE_ROOTFS_FILE} and ${SNAPSHOT_MANIFEST_FILE}, and have no "\\", control characters or leading dot`,
  );
}

/**
 * Runs `work` with the disk and the other files. Those must belong to the owner of the disk, to root, or to this
 * process's user.
 */
export async function withSources<T>(
  image: SlotImage,
  others: readonly string[],
  work: (sources: readonly SnapshotSource[]) => Promise<T>,
): Promise<T> {
  const owner = image.state.image?.uid ?? 0;
  const opened: SnapshotSource[] = [];
  try {
    for (const file of others) {
      const { source, info } = await openFileOf(file, owner);
      opened.push({ name: basename(file), source, identity: info.identity });
      if (info.identity.sizeBytes > FILE_BYTES_LIMIT) throw tooLargeError(file, info.identity.sizeBytes);
    }
    return await work([
      { name: CLONE_ROOTFS_FILE, source: image.source, identity: image.identity },
      ...opened,
    ]);
  } finally {
    closeAll(opened);
  }
}

function tooLargeError(path: string, sizeBytes: number): RootfsError {
  return new RootfsError(
    'SOURCE_TOO_LARGE',
    `${path} is ${sizeBytes} bytes long; a file of a snapshot may have ${FILE_BYTES_LIMIT}: truncate it ` +
      'to what it holds',
    { path },
  );
}

/** Rejects with `SOURCE_CHANGED` if a file was written to before all were copied. */
export async function copyAll(
  task: Task,
  sources: readonly SnapshotSource[],
  staged: string,
): Promise<CopiedFile[]> {
  const folder = await native().openGuardedFolder(staged, true);
  try {
    const copies: CopiedFile[] = [];
    for (const { name, source, identity } of sources) {
      copies.push(await copyOne(task, source, identity, { folder, name }));
    }
    for (const { source, identity } of sources) await requireUnchanged(task.what, source, identity);
    return copies;
  } finally {
    native().dispose(folder);
  }
}

async function copyOne(
  task: Task,
  source: NativeSource,
  { sizeBytes }: Identity,
  dest: Destination,
): Promise<CopiedFile> {
  const options = { ownerAndMode: READ_ONLY, durable: true, beforePublished: async () => {} };
  return copyFile(task, source, sizeBytes, dest, options);
}

/** What the copies hold. */
export async function describeCopies(
  watched: Watched,
  sources: readonly SnapshotSource[],
  staged: string,
): Promise<SnapshotFile[]> {
  const paths = sources.map(({ name }) => join(staged, name));
  const digests = await hashAll(paths, watched);
  return sources.map(({ name, identity: { sizeBytes } }, i) => ({
    name,
    sizeBytes,
    sha256: digests[i] as string,
  }));
}

/** Writes the manifest and publishes the snapshot. Rejects with `SNAPSHOT_EXISTS`. */
export async function publish(staged: string, path: string, manifest: string): Promise<void> {
  const file = join(staged, SNAPSHOT_MANIFEST_FILE);
  await writeFlushed(file, manifest, 0o444);
  await flush(staged);
  try {
    await rename(staged, path);
  } catch (error) {
    throw isTaken(error) ? snapshotExistsError(path) : error;
  }
}

export function snapshotExistsError(path: string): RootfsError {
  const message =
    `${path} exists already; remove it first, or choose another name (without its ${SNAPSHOT_MANIFEST_FILE} it is ` +
    'not a snapshot and is not listed: remove it by hand)';
  return new RootfsError('SNAPSHOT_EXISTS', message, { path });
}
