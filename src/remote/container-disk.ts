// KubeVirt's container disks: container images of one layer, a tar whose only file is the disk, in the folder `disk`.

import { type FileHandle, open } from 'node:fs/promises';
import { constants, createGunzip } from 'node:zlib';
import { SparseFile, type SparseFileOptions } from '../publish/sparse-file.js';
import { looksLikeTar, TAR_BLOCK_BYTES } from '../publish/tar/header.js';
import { isFolder, readMembers, type TarMember } from '../publish/tar/members.js';
import { TarDamaged } from '../publish/tar/tar-damaged.js';
import type { TarBytes } from '../publish/tar/tar-input.js';
import { tooLarge } from '../publish/tree/limits.js';
import type { RootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';
import { invalid } from './artifact.js';

/** How much of a gzipped tar to read for its first headers. */
const START_BYTES = 64 * 1024;

const COPY_BYTES = 1024 * 1024;

/** Whether a layer that begins with these bytes, gzip or not, is a tar whose first file is not a disk. */
export async function beginsWithFiles(head: Buffer, isGzip: boolean): Promise<boolean> {
  const start = isGzip ? await inflateStart(head) : head;
  if (!looksLikeTar(start.subarray(0, TAR_BLOCK_BYTES))) return false;
  try {
    for await (const member of readMembers(endless(start), Number.POSITIVE_INFINITY))
      if (!isFolder(member)) return !isDisk(member);
  } catch (error) {
    // Reading the whole of it will tell what is wrong.
    if (!(error instanceof TarDamaged)) throw error;
  }
  return false;
}

interface DiskExtraction {
  /** The layer. */
  readonly path: string;
  /** Used in messages. */
  readonly source: string;
  /** Must not exist yet. */
  readonly dest: string;
  readonly maxBytes: number;
  readonly sparse: SparseFileOptions;
}

/** Writes the disk in a layer to `dest`. Rejects with `ARTIFACT_INVALID`, `SOURCE_TOO_LARGE`. */
export async function extractDisk(
  task: Task,
  { path, source, dest, maxBytes, sparse }: DiskExtraction,
): Promise<void> {
  const file = await open(path, 'r');
  try {
    const disk = await onlyDisk(task, file, source);
    if (disk.sizeBytes > maxBytes)
      throw tooLarge(source, `holds a disk of ${disk.sizeBytes} bytes`, 'limits.maxBytes');
    await copyMember(task, file, disk, dest, sparse);
  } catch (error) {
    if (error instanceof TarDamaged) throw invalid(`the tar in ${source} ${error.message}`);
    throw error;
  } finally {
    await file.close();
  }
}

async function onlyDisk(task: Task, file: FileHandle, source: string): Promise<TarMember> {
  let disk: TarMember | undefined;
  const checkAborted = () => task.checkAborted();
  for await (const member of readMembers(file, (await file.stat()).size, { checkAborted })) {
    checkAborted();
    if (isFolder(member)) continue;
    if (disk !== undefined || !isDisk(member)) throw holdsFiles(source);
    disk = member;
  }
  if (disk === undefined) throw holdsFiles(source);
  return disk;
}

async function copyMember(
  task: Task,
  file: FileHandle,
  { sizeBytes, segments }: TarMember,
  dest: string,
  sparse: SparseFileOptions,
): Promise<void> {
  const copy = await SparseFile.create(dest, sparse);
  const buffer = Buffer.allocUnsafe(COPY_BYTES);
  try {
    for (const { at, length, from } of segments) {
      await copy.skip(at - copy.length);
      for (let done = 0; done < length; ) {
        task.checkAborted();
        const { bytesRead } = await file.read(buffer, 0, Math.min(COPY_BYTES, length - done), from + done);
        if (bytesRead === 0) throw new TarDamaged('was cut off');
        await copy.write(buffer.subarray(0, bytesRead));
        done += bytesRead;
      }
    }
    await copy.skip(sizeBytes - copy.length);
    await copy.finish();
  } finally {
    await copy.close();
  }
}

function isDisk({ type, path }: TarMember): boolean {
  return /^[0S\0]$/.test(type) && /^(\.?\/)?disk\/[^/]+$/.test(path.toString('latin1'));
}

/** The first file of a tar may be longer than what is here of it. What follows it reads as the end. */
function endless(start: Buffer): TarBytes {
  return {
    read: async (buffer, offset, length, position) => {
      buffer.fill(0, offset, offset + length);
      start.copy(buffer, offset, Math.min(position, start.length), Math.min(position + length, start.length));
      return { bytesRead: length };
    },
  };
}

/** What the start of a gzip stream decompresses to, as far as the first write of zlib goes. */
async function inflateStart(head: Buffer): Promise<Buffer> {
  const gunzip = createGunzip({ finishFlush: constants.Z_SYNC_FLUSH, chunkSize: START_BYTES });
  gunzip.end(head);
  try {
    for await (const bytes of gunzip) return bytes as Buffer;
  } catch {
    // Reading the whole of it will tell what is wrong.
  }
  return Buffer.alloc(0);
}

/** The error for a layer that is not a disk. */
export function holdsFiles(source: string): RootfsError {
  return invalid(
    `${source} holds files, not a disk: publish a container image with publishStack('NAME', 'docker://${source}'), ` +
      'and the files of another artifact as a folder, once the tool that pushed it has fetched them',
  );
}
