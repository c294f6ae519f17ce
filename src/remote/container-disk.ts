// KubeVirt's container disks: container images of one layer, a tar with the disk as the only file in its folder `disk`.

import { type FileHandle, open, truncate, writeFile } from 'node:fs/promises';
import { constants, createGunzip } from 'node:zlib';
import { readBytes } from '../image/read-bytes.js';
import { formatOf } from '../publish/image-format.js';
import { SparseFile, type SparseFileOptions } from '../publish/sparse-file.js';
import { looksLikeTar, TAR_BLOCK_BYTES } from '../publish/tar/header.js';
import { readMembers, TarDamaged, type TarMember } from '../publish/tar/members.js';
import { readContent } from '../publish/tree/file-tree.js';
import { tooLarge } from '../publish/tree/limits.js';
import type { Task } from '../system/task.js';
import { invalid } from './artifact.js';

/** Enough of a layer for {@link requireNoFiles}. */
export const HEAD_BYTES = 256 * 1024;

/** Longer than any first file, and no longer than any file system takes. */
const SCRATCH_BYTES = 2 ** 43;

const COPY_BYTES = 1024 * 1024;

/**
 * Throws `ARTIFACT_INVALID` for a container image with files, before all of it is fetched. `path` has the first bytes
 * of the layer, `scratch` is written to.
 */
export async function requireNoFiles(path: string, scratch: string, source: string): Promise<void> {
  const head = await readBytes(path, 0, HEAD_BYTES);
  const start = (await formatOf(path)) === 'gzip' ? await inflateStart(head) : head;
  if (!looksLikeTar(start.subarray(0, TAR_BLOCK_BYTES))) return;
  await writeFile(scratch, start);
  // The first file may be longer than what is here of it. What follows it reads as the end.
  await truncate(scratch, SCRATCH_BYTES);
  const file = await open(scratch, 'r');
  try {
    for await (const member of readMembers(file, () => {})) {
      if (isFolder(member)) continue;
      if (isDisk(member)) return;
      throw containerImage(source);
    }
  } catch (error) {
    // The rest of it has not come yet.
    if (!(error instanceof TarDamaged)) throw error;
  } finally {
    await file.close();
  }
}

/** Writes the disk in a layer to `dest`. Rejects with `ARTIFACT_INVALID`, `SOURCE_TOO_LARGE`. */
export async function extractDisk(
  task: Task,
  layer: string,
  source: string,
  dest: string,
  maxBytes: number,
  sparse: SparseFileOptions,
): Promise<void> {
  const file = await open(layer, 'r');
  try {
    const disk = await onlyDisk(task, file, source);
    if (disk.sizeBytes > maxBytes)
      throw tooLarge(source, `holds a disk of ${disk.sizeBytes} bytes`, 'limits.maxBytes');
    await copyMember(task, file, disk, dest, sparse);
  } catch (error) {
    if (error instanceof TarDamaged) throw invalid(`the tar in its layer ${error.message}`);
    throw error;
  } finally {
    await file.close();
  }
}

async function onlyDisk(task: Task, file: FileHandle, source: string): Promise<TarMember> {
  let disk: TarMember | undefined;
  for await (const member of readMembers(file, () => {})) {
    task.checkAborted();
    if (isFolder(member)) continue;
    if (disk !== undefined || !isDisk(member)) throw containerImage(source);
    disk = member;
  }
  if (disk === undefined) throw containerImage(source);
  return disk;
}

async function copyMember(
  task: Task,
  file: FileHandle,
  { sizeBytes, segments }: TarMember,
  dest: string,
  sparse: SparseFileOptions,
): Promise<void> {
  const cutOff = () => new TarDamaged('was cut off');
  const content = { sizeBytes, segments, open: () => Promise.reject(cutOff()), endedEarly: cutOff };
  const copy = await SparseFile.create(dest, sparse);
  try {
    for (let at = 0; at < sizeBytes; at += COPY_BYTES) {
      task.checkAborted();
      const buffer = Buffer.allocUnsafe(Math.min(COPY_BYTES, sizeBytes - at));
      await readContent(content, file, at, buffer);
      await copy.write(buffer);
    }
    await copy.finish();
  } finally {
    await copy.close();
  }
}

function isFolder({ type, path }: TarMember): boolean {
  return type === '5' || path.at(-1) === '/'.charCodeAt(0);
}

function isDisk({ type, path }: TarMember): boolean {
  return /^[0S\0]$/.test(type) && /^(\.?\/)?disk\/[^/]+$/.test(path.toString('latin1'));
}

/** What the start of a gzip stream decompresses to, as far as the first write of zlib goes. */
async function inflateStart(head: Buffer): Promise<Buffer> {
  const gunzip = createGunzip({ finishFlush: constants.Z_SYNC_FLUSH, chunkSize: HEAD_BYTES });
  gunzip.end(head);
  try {
    for await (const bytes of gunzip) return bytes as Buffer;
  } catch {
    // The whole of it will tell.
  }
  return Buffer.alloc(0);
}

function containerImage(source: string) {
  return invalid(
    `${source} is a container image with files, not a disk: publish it with publishStack('NAME', 'docker://${source}')`,
  );
}
