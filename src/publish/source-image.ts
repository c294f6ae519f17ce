// Turns any source into a raw image in a work folder. What reads a kind of source is loaded when one comes: loading all
// of it at once would hold the event loop for 30 ms.

import type { Stats } from 'node:fs';
import { rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { addAbortSignal, type Readable } from 'node:stream';
import { sameState } from '../addon/identity.js';
import { native, type OpenedSource, RUNG } from '../addon/native.js';
import type { ImageConfig } from '../catalog/image-config.js';
import { unchanged } from '../catalog/template.js';
import type { OpenFolder } from '../folder/open-folder.js';
import { copyImage } from '../image/staged-copy.js';
import { absolutePath } from '../system/arguments.js';
import type { RegistrySettings } from '../system/config.js';
import { failedWith, RootfsError } from '../system/errors.js';
import { isWithinOnDisk } from '../system/folders-overlap.js';
import { mountTable } from '../system/mount-table.js';
import { withController } from '../system/on-abort.js';
import type { Task } from '../system/task.js';
import type { RegistryCheck } from './fetch-image.js';
import { formatOf, type ImageFormat, isCompression, type PlainFormat } from './image-format.js';
import { limitsOf, type PublishOptions } from './publish-options.js';
import { INPUT_NAME, isContainerImage, STANDARD_INPUT } from './source-name.js';
import { SparseFile } from './sparse-file.js';
import { requireSome, standardInput } from './standard-input.js';
import { FIXED_TIME_NS, type FolderNode } from './tree/file-tree.js';
import type { FolderReading } from './tree/folder-tree.js';
import { tooLarge } from './tree/limits.js';

export interface Staging {
  readonly task: Task;
  readonly folder: OpenFolder;
  readonly source: string;
  /** See PublishRequest. */
  readonly opened: OpenedSource | undefined;
  /** Used by this call only, on the catalog's filesystem. */
  readonly workFolder: string;
  /** Path of the new image. It must not exist. */
  readonly image: string;
  readonly mke2fsBin: string;
  readonly options: PublishOptions;
  readonly registries: RegistrySettings;
  readonly checkRegistry: RegistryCheck | undefined;
}

interface StagedImage {
  readonly format: ImageFormat;
  /** For container images only. */
  readonly config: ImageConfig | undefined;
}

/**
 * Resolves to the format of the source. Rejects with `SOURCE_CHANGED` if it was written to meanwhile, `IMAGE_INVALID`,
 * `INVALID_ARGUMENT`, or the error of the program that read it.
 */
export async function stageImage(staging: Staging): Promise<StagedImage> {
  const { source, opened } = staging;
  if (opened !== undefined) {
    await unchanged(source, opened, () => stageRaw(staging, opened), sourceChangedError);
    return { format: 'raw', config: undefined };
  }
  if (isContainerImage(source)) return stageContainer(staging);
  return { format: await stageFile(staging), config: undefined };
}

async function stageFile(staging: Staging): Promise<ImageFormat> {
  const { source, options } = staging;
  if (options.platform !== undefined)
    throw invalid('platform is for container images, as docker://… or oci:DIR', source);
  if (source === STANDARD_INPUT) return stageInput({ ...staging, source: INPUT_NAME });
  const isFolder = (await stat(source)).isDirectory();
  if (
    isFolder !== (options.format === 'folder') &&
    (isFolder || options.format === 'folder') &&
    options.format
  )
    throw invalid(
      `${source} is ${isFolder ? 'a folder' : 'no folder'}, format says ${options.format}`,
      source,
    );
  if (isFolder) {
    await stageFolder(staging);
    return 'folder';
  }
  return unchangedSource(source, async (opened) => {
    const format = options.format ?? (await formatOf(source));
    if (!isCompression(format)) await stagePlain(staging, format as PlainFormat, source, opened);
    else await stageCompressed(staging, format, source, opened.info.identity.sizeBytes);
    return format;
  });
}

async function stageContainer(staging: Staging): Promise<StagedImage> {
  const { task, source, workFolder, options, registries, checkRegistry, mke2fsBin } = staging;
  if (options.format !== undefined) throw invalid('format is for files and folders', source);
  const request = {
    source,
    workFolder,
    platform: options.platform,
    registries,
    checkRegistry,
    limits: limitsOf(options.limits),
  };
  const { requireMke2fs } = await import('./make-ext4.js');
  await requireMke2fs(mke2fsBin);
  const { unpackContainerImage } = await import('./container-image.js');
  const { tree, config, listed } = await unpackContainerImage(task, request);
  const { readFolder } = await import('./tree/folder-tree.js');
  const { root } = await readFolder(tree, { ...folderReading(staging), source, listed });
  await stageTree(staging, root);
  return { format: 'container', config };
}

/** Stores all input before processing it, because a qcow2 or tar may need its end first. */
async function stageInput(staging: Staging): Promise<ImageFormat> {
  const { task, workFolder, options } = staging;
  if (options.format === 'folder') throw invalid(`${INPUT_NAME} is not a folder`, INPUT_NAME);
  const path = join(workFolder, 'input');
  const bytesDone = await withController(task.signal, ({ signal }) =>
    storeInput(staging, addAbortSignal(signal, standardInput()), path),
  );
  requireSome(bytesDone);
  const format = options.format ?? (await formatOf(path));
  if (!isCompression(format)) await stagePlain(staging, format as PlainFormat, path, undefined);
  else await stageCompressed(staging, format, path, bytesDone);
  return format;
}

/** Resolves to how many bytes there were. */
async function storeInput(staging: Staging, input: Readable, path: string): Promise<number> {
  const { task, options } = staging;
  const { maxBytes } = limitsOf(options.limits);
  const file = await SparseFile.create(path, sparseOptions(staging));
  let bytesDone = 0;
  try {
    for await (const chunk of input) {
      task.checkAborted();
      await file.write(chunk as Buffer);
      bytesDone += (chunk as Buffer).length;
      if (bytesDone > maxBytes)
        throw tooLarge(INPUT_NAME, `holds more than ${maxBytes} bytes`, 'limits.maxBytes');
      options.onProgress?.({ step: 'read', bytesDone, bytesTotal: bytesDone });
    }
    await file.finish();
    return bytesDone;
  } catch (error) {
    task.checkAborted();
    throw error;
  } finally {
    await file.close();
  }
}

async function stageCompressed(
  staging: Staging,
  format: 'gzip' | 'zstd' | 'xz',
  path: string,
  bytesTotal: number,
): Promise<void> {
  const { task, source, workFolder, options } = staging;
  const stream = join(workFolder, 'stream');
  const request = {
    format,
    path,
    source,
    dest: stream,
    limits: limitsOf(options.limits),
    sparse: sparseOptions(staging),
  };
  const { decompress } = await import('./decompress.js');
  await decompress(task, request, (bytesDone) =>
    options.onProgress?.({ step: 'read', bytesDone, bytesTotal: Math.max(bytesDone, bytesTotal) }),
  );
  if (path !== source) await rm(path);
  const inner = await formatOf(stream);
  if (isCompression(inner))
    throw new RootfsError('IMAGE_INVALID', `${source} is compressed twice: decompress it once`, {
      path: source,
    });
  await stagePlain(staging, inner, stream, undefined);
}

/** `opened` is set for the caller's own file. Files in the work folder may be moved and removed. */
async function stagePlain(
  staging: Staging,
  format: PlainFormat,
  path: string,
  opened: OpenedSource | undefined,
): Promise<void> {
  const { image, options } = staging;
  if (format !== 'tar' && options.sizeBytes !== undefined)
    throw invalid('sizeBytes is for folders and tars; an image keeps its size', staging.source);
  switch (format) {
    case 'raw':
      return opened === undefined ? rename(path, image) : stageRaw(staging, opened);
    case 'qcow2': {
      const { convertQcow2 } = await import('./qcow2.js');
      return convertQcow2(staging.task, path, staging.source, image, limitsOf(options.limits).maxBytes);
    }
    case 'tar': {
      const { withTarTree } = await import('./tar/tar-tree.js');
      const reading = {
        source: staging.source,
        limits: limitsOf(options.limits),
        otherTimeNs: FIXED_TIME_NS,
        checkAborted: () => staging.task.checkAborted(),
      };
      await withTarTree(path, reading, (root) => stageTree(staging, root, reading.limits.maxBytes));
    }
  }
}

async function stageRaw(
  { task, folder, image, options }: Staging,
  { source, info }: OpenedSource,
): Promise<void> {
  const { onProgress } = options;
  const { sizeBytes } = info.identity;
  const outcome = await native().stageImage(folder.handle, source, {
    sidecars: [],
    expected: info.identity,
    rungs: RUNG.reflink | RUNG.copy,
    packed: folder.reflinks === true,
    mode: 0o600,
    durable: true,
  });
  try {
    if (outcome.status === 'copy-needed') {
      await copyImage(task, outcome.staged, (bytesDone) =>
        onProgress?.({ step: 'read', bytesDone, bytesTotal: Math.max(bytesDone, sizeBytes) }),
      );
    }
    await rename(outcome.imagePath, image);
  } finally {
    await native().discardSlot(outcome.staged);
  }
}

async function stageFolder(staging: Staging): Promise<void> {
  const { source, workFolder } = staging;
  if (await isWithinOnDisk(workFolder, source, await mountTable()))
    throw invalid(`${source} holds the catalog itself: publish another folder`, source);
  const { markOfFolder, readFolder } = await import('./tree/folder-tree.js');
  const { refuseOtherTree } = await import('./tree/other-trees.js');
  const reading = folderReading(staging);
  const { root, mark, mounts } = await readFolder(source, reading);
  refuseOtherTree(source, root, 'folder');
  if (mounts.length > 0) warnOfMounts(mounts);
  await stageTree(staging, root);
  if ((await markOfFolder(source, reading)) !== mark)
    throw sourceChangedError(source, 'changed while it was read');
}

function folderReading({ task, options }: Staging): FolderReading {
  return {
    limits: limitsOf(options.limits),
    includeMounts: options.includeMounts ?? false,
    otherTimeNs: FIXED_TIME_NS,
    checkAborted: () => task.checkAborted(),
  };
}

function warnOfMounts(mounts: readonly string[]): void {
  const more = mounts.length > 5 ? ` and ${mounts.length - 5} more` : '';
  process.emitWarning(
    `other file systems are mounted at ${mounts.slice(0, 5).join(', ')}${more}: published as empty. ` +
      'Set includeMounts to publish what is in them',
    { code: 'MICROVM_ROOTFS_MOUNTS' },
  );
}

async function stageTree(
  { task, source, image, mke2fsBin, options }: Staging,
  root: FolderNode,
  maxBytes?: number,
): Promise<void> {
  const { makeExt4 } = await import('./make-ext4.js');
  await makeExt4(task, { root, source, image, sizeBytes: options.sizeBytes, maxBytes, mke2fsBin });
}

/** Filling gaps saves extents, and only reflinks pay for those. */
function sparseOptions({ folder }: Staging): { readonly fillGaps: boolean } {
  return { fillGaps: folder.reflinks === true };
}

/**
 * Runs work on a file and fails if somebody writes to or replaces it meanwhile. This is needed because programs open it
 * by path.
 */
async function unchangedSource<T>(path: string, work: (opened: OpenedSource) => Promise<T>): Promise<T> {
  const opened = await openSource(path);
  try {
    return await unchanged(
      path,
      opened,
      async () => {
        const result = await work(opened);
        const [now] = await native().identities([absolutePath('source', path)]);
        if (now === undefined || !sameState(now, opened.info.identity))
          throw sourceChangedError(path, 'was replaced while it was read');
        return result;
      },
      sourceChangedError,
    );
  } finally {
    native().dispose(opened.source);
  }
}

async function openSource(path: string): Promise<OpenedSource> {
  try {
    return await native().openSource(path);
  } catch (error) {
    if (!failedWith(error, 'EINVAL')) throw error;
    throw invalid(`${path} is ${kindOf(await stat(path), path)}`, path);
  }
}

/** What kind of file it is, if not a regular one, and how to publish it. */
function kindOf(stats: Stats, path: string): string {
  // The shell's <(…) and what is piped into this process are there for it alone.
  const isOwn = /^\/dev\/(fd\/|stdin$)|^\/proc\/(self|\d+)\/fd\//.test(path);
  const isPipe = stats.isFIFO() || (isOwn && stats.isSocket());
  if (!isPipe && !stats.isBlockDevice()) return 'neither a regular file nor a folder';
  return (
    `${isPipe ? 'a pipe' : 'a device'}, not a regular file: publish it as standard input, with the source - ` +
    `(${isOwn ? 'COMMAND | microvm-rootfs publish NAME -' : `microvm-rootfs publish NAME - < ${path}`})`
  );
}

function sourceChangedError(path: string, how: string): RootfsError {
  return new RootfsError('SOURCE_CHANGED', `${path} ${how}: stop whatever writes to it, and publish again`, {
    path,
  });
}

function invalid(message: string, path: string): RootfsError {
  return new RootfsError('INVALID_ARGUMENT', message, { path });
}
