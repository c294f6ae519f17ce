// Opens a snapshot: its manifest and its files, all of one folder, while another process may remove or replace it.

import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import type { OpenedSource } from '../addon/native.js';
import { readOwnFile } from '../folder/state-files.js';
import { failedWith, hasCode, RootfsError } from '../system/errors.js';
import { isMissing } from '../system/is-missing.js';
import { inOneFolder } from './one-folder.js';
import { closeAll, corrupt, openSnapshotFile } from './snapshot-files.js';
import {
  parseManifest,
  SNAPSHOT_MANIFEST_BYTES_LIMIT,
  SNAPSHOT_MANIFEST_FILE,
  type SnapshotManifest,
  type SnapshotRecord,
} from './snapshot-manifest.js';

const { O_DIRECTORY, O_NOFOLLOW, O_RDONLY } = constants;

export interface OpenSnapshot extends SnapshotManifest {
  /** Its folder. */
  readonly path: string;
  /** The files, in the order of the record. */
  readonly sources: readonly OpenedSource[];
}

/** Rejects with `SNAPSHOT_NOT_FOUND`, and with `SNAPSHOT_CORRUPT` if a file is missing or has another length. */
export async function withSnapshot<T>(path: string, work: (open: OpenSnapshot) => Promise<T>): Promise<T> {
  const open = await inOneFolder(
    path,
    () => openAll(path),
    ({ sources }) => closeAll(sources),
  );
  try {
    return await work(open);
  } finally {
    closeAll(open.sources);
  }
}

async function openAll(path: string): Promise<OpenSnapshot> {
  const manifest = await readManifest(path);
  return { path, ...manifest, sources: await openFiles(path, manifest.record) };
}

/** Rejects with `SNAPSHOT_CORRUPT`. */
export async function openFiles(folder: string, { files }: SnapshotRecord): Promise<OpenedSource[]> {
  const sources: OpenedSource[] = [];
  try {
    for (const { name, sizeBytes } of files) {
      const file = join(folder, name);
      const opened = await openSnapshotFile(file);
      sources.push(opened);
      const found = opened.info.identity.sizeBytes;
      if (found !== sizeBytes) throw corrupt(file, `it has ${found} bytes rather than ${sizeBytes}`);
    }
    return sources;
  } catch (error) {
    closeAll(sources);
    throw error;
  }
}

/** A snapshot whose folder is open, so that the kernel gives its inode to no other. */
export interface HeldSnapshot extends SnapshotManifest {
  // Not Node's FileHandle: the types of the package reach this file, and need none of Node's.
  readonly folder: { readonly fd: number; close(): Promise<void> };
}

/** Undefined if there is none. Rejects with `SNAPSHOT_CORRUPT` if something is there that is not a snapshot. */
export async function openSnapshotFolder(path: string): Promise<HeldSnapshot | undefined> {
  let folder: FileHandle | undefined;
  try {
    folder = await open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    return { folder, ...(await inOneFolder(path, () => readManifest(path))) };
  } catch (error) {
    await folder?.close();
    if (failedWith(error, 'ENOENT') || hasCode(error, 'SNAPSHOT_NOT_FOUND')) return undefined;
    if (failedWith(error, 'ENOTDIR', 'ELOOP')) throw corrupt(join(path, SNAPSHOT_MANIFEST_FILE), NO_MANIFEST);
    throw error;
  }
}

const NO_MANIFEST =
  'it is missing, or was not written by microvm-rootfs. The folder may hold other data: remove it by hand';

async function readManifest(path: string): Promise<SnapshotManifest> {
  if (await isMissing(path)) {
    throw new RootfsError(
      'SNAPSHOT_NOT_FOUND',
      `there is no snapshot ${path}; snapshots() lists what is there`,
      { path },
    );
  }
  const file = join(path, SNAPSHOT_MANIFEST_FILE);
  const text = (await readOwnFile(file, SNAPSHOT_MANIFEST_BYTES_LIMIT)) ?? '';
  const record = parseManifest(text);
  if (record === undefined) throw corrupt(file, NO_MANIFEST);
  return { text, record };
}

/** For what may be gone. */
export function unlessMissing(error: unknown): undefined {
  if (!hasCode(error, 'SNAPSHOT_NOT_FOUND')) throw error;
}
