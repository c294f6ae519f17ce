// Disks that other tools have put into a registry, as the only layer of an artifact: by `oras push`, for podman machine
// or for KubeVirt. The layer is the disk: raw, compressed, or a qcow2.

import { chmod, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { readSuperblock } from '../image/ext4.js';
import { noFilesystem } from '../publish/check-image.js';
import { decompress } from '../publish/decompress.js';
import { formatOf, type ImageFormat, isCompression } from '../publish/image-format.js';
import { limitsOf, type PublishLimits } from '../publish/publish-options.js';
import { convertQcow2 } from '../publish/qcow2.js';
import type { SparseFileOptions } from '../publish/sparse-file.js';
import { tooLarge } from '../publish/tree/limits.js';
import { isFull, type RootfsError } from '../system/errors.js';
import { isMissing } from '../system/is-missing.js';
import { writeOfMode } from '../system/make-files.js';
import { makeFolders } from '../system/make-folders.js';
import type { Task } from '../system/task.js';
import { type Artifact, invalid, type Layer, SNAPSHOT_TYPE, STACK_TYPE } from './artifact.js';
import type { BlobReader } from './blob-reader.js';
import { beginsWithFiles, extractDisk, holdsFiles } from './container-disk.js';
import { fetchFile } from './fetch-file.js';
import { requireSpace } from './space.js';
import type { TransferProgress } from './transfer-options.js';

interface DiskRequest {
  readonly reader: BlobReader;
  readonly layer: Layer;
  /** Used in messages. */
  readonly source: string;
  /** Keeps the layer over an interrupted pull. */
  readonly folder: string;
  /** Path of the new image. */
  readonly image: string;
  readonly sparse: SparseFileOptions;
  readonly limits: PublishLimits | undefined;
  readonly onProgress: ((progress: TransferProgress) => void) | undefined;
}

interface StagedDisk {
  /** The format of the layer. */
  readonly format: ImageFormat;
  /** Bytes of the layer that were there already. */
  readonly reusedBytes: number;
}

/** So much of a layer shows whether it is worth fetching. */
const HEAD_BYTES = 256 * 1024;

/** The layer with the disk, unless the artifact is one of ours. */
export function diskLayer({ artifactType, layers }: Artifact): Layer | undefined {
  const isOurs = artifactType === STACK_TYPE || artifactType === SNAPSHOT_TYPE;
  return isOurs || layers.length !== 1 ? undefined : layers[0];
}

/**
 * Rejects with `ARTIFACT_INVALID`, `DIGEST_MISMATCH`, `SOURCE_TOO_LARGE`, `ENOSPC`, or the errors of a source that is
 * published.
 */
export async function stageDisk(task: Task, request: DiskRequest): Promise<StagedDisk> {
  const { folder, image } = request;
  const [path, work] = [join(folder, 'layer'), join(folder, 'work')];
  // An earlier pull that came far enough has moved a raw layer: it is the image itself.
  if ((await isMissing(path)) && !(await isMissing(image))) {
    await chmod(image, 0o600);
    await rename(image, path);
  }
  const made = [work, dirname(image)];
  for (const each of made) {
    await rm(each, { recursive: true, force: true });
    await makeFolders(each, 0o700);
  }
  const reusedBytes = await fetchLayer(task, request, path);
  try {
    return { format: await makeImage(task, request, path, work), reusedBytes };
  } catch (error) {
    // The layer stays for the next pull. What was made of it takes space that may be lacking.
    for (const each of made) await rm(each, { recursive: true, force: true });
    throw error;
  }
}

/** Returns how much of it was there already. */
async function fetchLayer(task: Task, request: DiskRequest, path: string): Promise<number> {
  const { reader, layer: blob, source, folder, limits } = request;
  const isNew = await isMissing(path);
  if (isNew) await fetchHead(task, request, path);
  const { size } = await stat(path);
  // A raw disk may be holes for the most part.
  if ((await formatOf(path)) !== 'raw') await requireSpace(task, folder, blob.size - size);
  else if (blob.size > limitsOf(limits).maxBytes)
    throw tooLarge(source, `holds a disk of ${blob.size} bytes`, 'limits.maxBytes');
  const reusedBytes = isNew ? 0 : size;
  const onWritten = (bytesDone: number) => progress(request, 'download', bytesDone, reusedBytes);
  const fetching = fetchFile(task, reader, { blob, path, onWritten });
  const kept = await fetching.catch(async (error: unknown) => {
    // The part would keep the disk full until somebody pulls this again.
    if (isFull(error)) await rm(path, { force: true });
    throw error;
  });
  return isNew ? 0 : kept;
}

/** Refuses what is not a disk before all of it is fetched. A mirror's bytes may be wrong, so the origin decides. */
async function fetchHead(task: Task, request: DiskRequest, path: string): Promise<void> {
  const { reader, layer, source } = request;
  let refusal: RootfsError | undefined;
  for (const each of [reader, reader.ofOrigin()]) {
    const parts: Buffer[] = [];
    const end = Math.min(HEAD_BYTES, layer.size);
    let length = 0;
    for await (const { bytes } of each.read(task, layer, 0, end)) {
      parts.push(bytes);
      length += bytes.length;
      progress(request, 'download', length, 0);
      // The registry may send all of it.
      if (length >= end) break;
    }
    const head = Buffer.concat(parts);
    await writeOfMode(path, head);
    refusal = await refusalOf(path, head, source);
    if (refusal === undefined) return;
  }
  await rm(path);
  throw refusal;
}

/** The error if what begins with these bytes, which are in the file, is certainly not a disk. */
async function refusalOf(path: string, head: Buffer, source: string): Promise<RootfsError | undefined> {
  const format = await formatOf(path);
  if ((format === 'gzip' || format === 'tar') && (await beginsWithFiles(head, format === 'gzip')))
    return holdsFiles(source);
  const isOther = format === 'raw' && (await readSuperblock(path)) === undefined;
  return isOther ? noFilesystem(path, source) : undefined;
}

/** Returns the format of the layer. */
async function makeImage(task: Task, request: DiskRequest, path: string, work: string): Promise<ImageFormat> {
  const format = await formatOf(path);
  if (!isCompression(format)) {
    await makeRaw(task, request, format, path, work);
    return format;
  }
  const { source, sparse, limits } = request;
  const stream = join(work, 'stream');
  const compressed = { format, path, source, dest: stream, limits: limitsOf(limits), sparse };
  await decompress(task, compressed, (bytesDone) => progress(request, 'unpack', bytesDone, 0));
  await makeRaw(task, request, await formatOf(stream), stream, work);
  return format;
}

/** `path` is in the pull's folder: it may be moved. */
async function makeRaw(
  task: Task,
  request: DiskRequest,
  format: ImageFormat,
  path: string,
  work: string,
): Promise<void> {
  const { source, image, sparse, limits } = request;
  const { maxBytes } = limitsOf(limits);
  switch (format) {
    case 'raw':
      return rename(path, image);
    case 'qcow2':
      return convertQcow2(task, path, source, image, maxBytes);
    case 'tar': {
      const disk = join(work, 'disk');
      await extractDisk(task, { path, source, dest: disk, maxBytes, sparse });
      const inner = await formatOf(disk);
      if (inner === 'raw' || inner === 'qcow2') return makeRaw(task, request, inner, disk, work);
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
