// Opens and hashes the files of snapshots, and compares them with the manifest.

import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { native, type OpenedSource } from '../addon/native.js';
import { hashSource } from '../image/hash.js';
import { sumOf } from '../image/hash-files.js';
import { requireUnchanged } from '../slot/slot-image.js';
import { allOrNone } from '../system/all-or-none.js';
import { failedWith, RootfsError } from '../system/errors.js';
import type { Progress } from '../system/long-work.js';
import type { Task } from '../system/task.js';
import { TurnsBySize } from '../system/turns-by-size.js';
import type { SnapshotRecord } from './snapshot-manifest.js';

export interface Watched {
  readonly task: Task;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

// Each has all files of a snapshot open while it waits for its turn to read them.
export const hashing = new TurnsBySize(32);

export async function verifyAll(
  path: string,
  { files }: SnapshotRecord,
  sources: readonly OpenedSource[],
  watched: Watched,
): Promise<void> {
  const digests = await hashSources(sources, watched);
  for (const [i, { name, sha256 }] of files.entries())
    requireDigest(join(path, name), sha256, digests[i] as string);
  for (const { source, info } of sources) await requireUnchanged(watched.task.what, source, info.identity);
}

export async function hashAll(paths: readonly string[], watched: Watched): Promise<string[]> {
  const sources: OpenedSource[] = [];
  try {
    for (const path of paths) sources.push(await native().openSource(path));
    return await hashSources(sources, watched);
  } finally {
    closeAll(sources);
  }
}

function hashSources(sources: readonly OpenedSource[], { task, onProgress }: Watched): Promise<string[]> {
  const report = sumOf(onProgress);
  return allOrNone({
    items: sources,
    atOnce: sources.length,
    signal: task.signal,
    work: ({ source, info }, either) =>
      hashSource(task.endedBy(either), source, info.identity.sizeBytes, report()),
  });
}

export function closeAll(sources: readonly Pick<OpenedSource, 'source'>[]): void {
  for (const { source } of sources) native().dispose(source);
}

export async function openSnapshotFile(path: string): Promise<OpenedSource> {
  try {
    const found = await lstat(path);
    if (!found.isFile()) throw corrupt(path, 'it is not a regular file');
    return await native().openSource(path);
  } catch (error) {
    if (failedWith(error, 'ENOENT')) throw corrupt(path, 'it is missing');
    throw error;
  }
}

/** Throws `SNAPSHOT_CORRUPT`. */
export function requireDigest(path: string, expected: string, found: string): void {
  if (found !== expected) throw corrupt(path, `its digest is ${found} rather than ${expected}`);
}

export function corrupt(path: string, how: string): RootfsError {
  return new RootfsError('SNAPSHOT_CORRUPT', `${path} is not as it was when the snapshot was made: ${how}`, {
    path,
  });
}
