// Disks that other tools have put into a registry, as a layer of their own: by `oras push`, for podman machine, for
// KubeVirt. The layer is the disk: raw, compressed, or a qcow2.

import { chmod, mkdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { decompress } from '../publish/decompress.js';
import { formatOf, type ImageFormat, isCompression } from '../publish/image-format.js';
import { DEFAULT_LIMITS } from '../publish/publish-options.js';
import { convertQcow2 } from '../publish/qcow2.js';
import type { SparseFileOptions } from '../publish/sparse-file.js';
import { isMissing } from '../system/is-missing.js';
import type { Task } from '../system/task.js';
import { type Artifact, invalid, type Layer, SNAPSHOT_TYPE, STACK_TYPE } from './artifact.js';
import { extractDisk, HEAD_BYTES, requireNoFiles } from './container-disk.js';
import { fetchFile } from './fetch-file.js';
import type { Reading } from './packed-file.js';
import { requireSpace } from './space.js';
import type { TransferProgress } from './transfer-options.js';

export interface DiskRequest extends Reading {
  readonly layer: Layer;
  /** Used in messages. */
  readonly source: string;
  /** Keeps the layer over an interrupted pull. */
  readonly folder: string;
  /** Path of the new image. */
  readonly image: string;
  readonly sparse: SparseFileOptions;
  readonly onProgress: ((progress: TransferProgress) => void) | undefined;
}

export interface StagedDisk {
  readonly format: ImageFormat;
  /** Bytes of the layer that were there already. */
  readonly reusedBytes: number;
}

/** The layer with the disk, unless the artifact is one of ours. */
export function diskLayer({ artifactType, layers }: Artifact): Layer | undefined {
  const isOurs = artifactType === STACK_TYPE || artifactType === SNAPSHOT_TYPE;
  return isOurs || layers.length !== 1 ? undefined : layers[0];
}

/** Rejects with `ARTIFACT_INVALID`, `DIGEST_MISMATCH`, `ENOSPC`, or the errors of a source that is published. */
export async function stageDisk(task: Task, request: DiskRequest): Promise<StagedDisk> {
  const { folder, image } = request;
  const [path, work] = [join(folder, 'layer'), join(folder, 'work')];
  // A layer that is the image itself was moved, if an earlier pull came so far.
  if ((await isMissing(path)) && !(await isMissing(image))) {
    await chmod(image, 0o600);
    await rename(image, path);
  }
  for (const made of [work, dirname(image)]) {
    await rm(made, { recursive: true, force: true });
    await mkdir(made, { mode: 0o700 });
  }
  const reusedBytes = await fetchLayer(task, request, path, join(work, 'head'));
  try {
    return { format: await makeImage(task, request, path, work), reusedBytes };
  } catch (error) {
    // The layer stays for the next pull. What was made of it takes space that may be lacking.
    for (const made of [work, dirname(image)]) await rm(made, { recursive: true, force: true });
    throw error;
  }
}

/** Returns the format of the layer. */
async function makeImage(task: Task, request: DiskRequest, path: string, work: string): Promise<ImageFormat> {
  const format = await formatOf(path);
  if (!isCompression(format)) {
    await stagePlain(task, request, format, path, work);
    return format;
  }
  const { source, sparse } = request;
  const stream = join(work, 'stream');
  const compressed = { format, path, source, dest: stream, limits: DEFAULT_LIMITS, sparse };
  await decompress(task, compressed, (bytesDone) => progress(request, 'unpack', bytesDone, 0));
  await stagePlain(task, request, await formatOf(stream), stream, work);
  return format;
}

/** Returns how much of it was there already. */
async function fetchLayer(task: Task, request: DiskRequest, path: string, scratch: string): Promise<number> {
  const { reader, readOptions, layer: blob, source, folder } = request;
  const reusedBytes = await sizeOf(path);
  const onWritten = (bytesDone: number) => progress(request, 'download', bytesDone, reusedBytes);
  const fetchTo = (end: number) => fetchFile(task, reader, { blob, path, end, onWritten }, readOptions);
  if (reusedBytes < HEAD_BYTES) await fetchTo(Math.min(HEAD_BYTES, blob.size));
  await requireNoFiles(path, scratch, source);
  await requireSpace(folder, blob.size - (await sizeOf(path)));
  await fetchTo(blob.size);
  return reusedBytes;
}

async function sizeOf(path: string): Promise<number> {
  return (await isMissing(path)) ? 0 : (await stat(path)).size;
}

/** `path` is in the pull's folder: it may be moved. */
async function stagePlain(
  task: Task,
  request: DiskRequest,
  format: ImageFormat,
  path: string,
  work: string,
): Promise<void> {
  const { source, image, sparse } = request;
  const { maxBytes } = DEFAULT_LIMITS;
  switch (format) {
    case 'raw':
      return rename(path, image);
    case 'qcow2':
      return convertQcow2(task, path, source, image, maxBytes);
    case 'tar': {
      const disk = join(work, 'disk');
      await extractDisk(task, path, source, disk, maxBytes, sparse);
      const inner = await formatOf(disk);
      if (inner === 'raw' || inner === 'qcow2') return stagePlain(task, request, inner, disk, work);
    }
  }
  throw invalid(`the disk in ${source} is compressed or packed twice: push it as it is, or compressed once`);
}

function progress(
  { layer: { size }, onProgress }: DiskRequest,
  step: TransferProgress['step'],
  bytesDone: number,
  reusedBytes: number,
): void {
  onProgress?.({ step, bytesDone, bytesTotal: size, reusedBytes });
}
