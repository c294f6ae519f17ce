// From whatever is published to a raw image in a work folder.

import { realpath, rename, rm, stat } from 'node:fs/promises';
import { join, resolve, sep } from 'node:path';
import { sameState } from '../addon/identity.js';
import { native, type OpenedSource, RUNG } from '../addon/native.js';
import type { ImageConfig } from '../catalog/image-config.js';
import { unchanged } from '../catalog/templates.js';
import type { OpenFolder } from '../folder/managed-folder.js';
import { copyImage } from '../image/staged-copy.js';
import type { RegistrySettings } from '../system/config.js';
import { failedWith, RootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';
import { isContainerImage, unpackContainerImage } from './container-image.js';
import { decompress } from './decompress.js';
import { formatOf, type ImageFormat, isCompression, type PlainFormat } from './image-format.js';
import { FIXED_TIME_S, makeExt4, sizeFor } from './make-ext4.js';
import type { PublishOptions } from './publish-options.js';
import { convertQcow2 } from './qcow2.js';
import { type AdvanceTimes, surveyTree, type TreeSurvey } from './tree-survey.js';
import { unpackTar } from './unpack-tar.js';

export interface Staging {
  readonly task: Task;
  readonly folder: OpenFolder;
  readonly source: string;
  /** Of this call alone, on the filesystem of the catalog. */
  readonly workFolder: string;
  /** Where the image is to be; it must not exist. */
  readonly image: string;
  readonly mke2fsBin: string;
  readonly options: PublishOptions;
  readonly registries: RegistrySettings;
}

export interface StagedImage {
  readonly format: ImageFormat;
  /** Of a container image. */
  readonly config: ImageConfig | undefined;
}

// A kernel's time stamps can lag behind the clock by a tick.
const TICK_MS = 100;

/**
 * Resolves to what the source was. Rejects with `SOURCE_CHANGED` if it was written to meanwhile, `IMAGE_INVALID`, `INVALID_ARGUMENT`, or what its
 * program rejected with.
 */
export async function stageImage(staging: Staging): Promise<StagedImage> {
  const { source } = staging;
  if (isContainerImage(source)) return stageContainer(staging);
  return { format: await stageFile(staging), config: undefined };
}

async function stageFile(staging: Staging): Promise<ImageFormat> {
  const { source, options } = staging;
  if (options.platform !== undefined)
    throw invalid('platform is for container images, as docker://… or oci:DIR', source);
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
    else await stageCompressed(staging, format, opened.info.identity.sizeBytes);
    return format;
  });
}

async function stageContainer(staging: Staging): Promise<StagedImage> {
  const { task, source, workFolder, options, registries } = staging;
  if (options.format !== undefined) throw invalid('format is for files and folders', source);
  const newerThanMs = Date.now() - TICK_MS;
  const unpacked = await unpackContainerImage(task, source, workFolder, options.platform, registries);
  await stageTree(staging, unpacked.tree, { newerThanMs, timeS: FIXED_TIME_S });
  return { format: 'container', config: unpacked.config };
}

async function stageCompressed(
  staging: Staging,
  format: 'gzip' | 'zstd' | 'xz',
  bytesTotal: number,
): Promise<void> {
  const { task, source, workFolder, options } = staging;
  const stream = join(workFolder, 'stream');
  await decompress(task, format, source, stream, (bytesDone) =>
    options.onProgress?.({ step: 'read', bytesDone, bytesTotal: Math.max(bytesDone, bytesTotal) }),
  );
  const inner = await formatOf(stream);
  if (isCompression(inner))
    throw new RootfsError('IMAGE_INVALID', `${source} is compressed twice: decompress it once`, {
      path: source,
    });
  await stagePlain(staging, inner, stream, undefined);
}

/** `opened` is given for the caller's own file; what is in the work folder may be moved and removed. */
async function stagePlain(
  staging: Staging,
  format: PlainFormat,
  path: string,
  opened: OpenedSource | undefined,
): Promise<void> {
  const { workFolder, image, options } = staging;
  if (format !== 'tar' && options.sizeBytes !== undefined)
    throw invalid('sizeBytes is for folders and tars; an image keeps its size', staging.source);
  switch (format) {
    case 'raw':
      return opened === undefined ? rename(path, image) : stageRaw(staging, opened);
    case 'qcow2':
      return convertQcow2(path, image, options.signal);
    case 'tar': {
      const tree = join(workFolder, 'tree');
      const newerThanMs = Date.now() - TICK_MS;
      await unpackTar(path, tree, options.signal);
      if (opened === undefined) await rm(path);
      await stageTree(staging, tree, { newerThanMs, timeS: FIXED_TIME_S });
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
  const { task, source, workFolder } = staging;
  const inside = `${await realpath(workFolder)}${sep}`.startsWith(
    `${(await realpath(source)).replace(/\/$/, '')}${sep}`,
  );
  if (inside) throw invalid(`${source} holds the catalog itself: publish another folder`, source);
  const before = await stageTree(staging, source);
  const after = await surveyTree(task, source);
  if (after.mark !== before.mark) throw sourceChangedError(source, 'changed while it was read');
}

async function stageTree(staging: Staging, tree: string, advanceTimes?: AdvanceTimes): Promise<TreeSurvey> {
  const { task, image, mke2fsBin, options } = staging;
  const survey = await surveyTree(task, tree, advanceTimes);
  task.checkAborted();
  await makeExt4(image, tree, survey, options.sizeBytes ?? sizeFor(survey), mke2fsBin, options.signal);
  return survey;
}

/** Runs work on a file that nobody may write to, or put another in the place of, meanwhile: programs open it by its path. */
async function unchangedSource<T>(path: string, work: (opened: OpenedSource) => Promise<T>): Promise<T> {
  const opened = await openSource(path);
  try {
    return await unchanged(
      path,
      opened,
      async () => {
        const result = await work(opened);
        const [now] = await native().identities([resolve(path)]);
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
    throw invalid(`${path} is neither a regular file nor a folder`, path);
  }
}

function sourceChangedError(path: string, how: string): RootfsError {
  return new RootfsError('SOURCE_CHANGED', `${path} ${how}: publish what nobody is writing to`, { path });
}

function invalid(message: string, path: string): RootfsError {
  return new RootfsError('INVALID_ARGUMENT', message, { path });
}
