// Pulls a stack from a registry into the catalog. Only chunks that this host lacks are fetched. A disk of another tool
// is fetched whole.

import { chmod, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { type Catalog, type StackInfo, TEMPLATE_ROOTFS_FILE } from '../catalog/catalog.js';
import { type ImageConfig, parseImageConfig } from '../catalog/image-config.js';
import type { Templates } from '../catalog/templates.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { finishStack, requireFinishable, type StagedStack } from '../publish/finish-stack.js';
import type { ImageFormat } from '../publish/image-format.js';
import { stackExists } from '../publish/place-stack.js';
import type { PublishPrograms } from '../publish/publish.js';
import { isPrivate, templateMode } from '../publish/template-mode.js';
import { tooLarge } from '../publish/tree/limits.js';
import { asRootfsError } from '../system/errors.js';
import { flush } from '../system/flush.js';
import { isMissing } from '../system/is-missing.js';
import type { Task } from '../system/task.js';
import { ANNOTATION, type Artifact, contentOf, invalid, type Layer, STACK_TYPE } from './artifact.js';
import { assembleImages } from './assemble-image.js';
import { chunkedImage } from './chunked-file.js';
import { diskLayer, stageDisk } from './disk-layer.js';
import type { KnownChunks } from './known-chunks.js';
import type { KnownDiskLayers } from './known-disk-layers.js';
import { type ArtifactRequest, type FoundArtifact, pullArtifact, requireExpected } from './pull-artifact.js';
import type { PullFolder } from './pull-folder.js';
import { formatReference } from './reference.js';
import { reusableTemplates } from './reusable-templates.js';
import type { PulledStack, PullOptions } from './transfer-options.js';

interface PullRequest extends Omit<ArtifactRequest, 'isWanted'> {
  readonly located: ReturnType<Catalog['located']>;
  readonly replace: boolean;
  readonly limits: PullOptions['limits'];
}

interface PullContext {
  readonly folder: ManagedFolder;
  readonly pulls: PullFolder;
  readonly catalog: Catalog;
  readonly templates: Templates;
  readonly known: KnownChunks;
  readonly disks: KnownDiskLayers;
  readonly config: PublishPrograms;
}

/** An image that was put together or made in a pull's folder, and has not been checked as a whole. */
interface StagedPull extends Required<Pick<StagedStack, 'config' | 'beforePlaced'>> {
  readonly format: ImageFormat;
  readonly expectedSha256: string | undefined;
  readonly reusedBytes: number;
}

export async function pullStack(
  task: Task,
  context: PullContext,
  request: PullRequest,
): Promise<PulledStack> {
  const { folder, pulls, config } = context;
  try {
    const stack = { ...request, isWanted };
    return await pullArtifact<PulledStack>(task, config.registries, pulls, stack, {
      present: (found) => presentStack(task, context, request, found),
      inFolder: async (work) => {
        await requireFinishable(request.located.templatePath, config.e2fsckBin);
        return inCatalog(folder, work);
      },
      pull: (found, path) => pullInto(task, context, request, found, path),
    });
  } catch (error) {
    throw asRootfsError(`${task.what} as ${request.located.name}`, error);
  }
}

function isWanted(artifact: Artifact): boolean {
  return artifact.artifactType === STACK_TYPE || diskLayer(artifact) !== undefined;
}

/** The catalog is opened, and if need be made, before anything is put into it. */
async function inCatalog<T>(folder: ManagedFolder, work: () => Promise<T>): Promise<T> {
  const isFirst = await isMissing(folder.path);
  return folder.use(async () => {
    if (isFirst) await flush(dirname(folder.path));
    return work();
  });
}

async function pullInto(
  task: Task,
  context: PullContext,
  request: PullRequest,
  found: FoundArtifact,
  path: string,
): Promise<PulledStack> {
  const { folder, catalog, templates, known, disks, config } = context;
  const { name, templatePath } = request.located;
  const staged = join(path, 'stack');
  const disk = diskLayer(found.artifact);
  const pull = await (disk === undefined
    ? stageChunks(task, context, request, found, staged)
    : stageLayer(task, context, request, found, { layer: disk, path, staged }));
  const { format, reusedBytes } = pull;
  await chmod(staged, 0o755);
  const { onProgress } = request.options;
  const published = await folder.use(({ handle }) =>
    finishStack(task, handle, templates, config.e2fsckBin, {
      name,
      templatePath,
      staged,
      source: formatReference(request.reference),
      mode: templateMode(keepsPrivate(found.artifact)),
      config: pull.config,
      beforePlaced: pull.beforePlaced,
      options: {
        replace: request.replace,
        ...(pull.expectedSha256 === undefined ? {} : { expectedSha256: pull.expectedSha256 }),
        onProgress: ({ bytesDone, bytesTotal }) =>
          onProgress?.({ step: 'check', bytesDone, bytesTotal, reusedBytes }),
      },
    }),
  );
  await forgetOthers(catalog, known, disks).catch(() => {}); // the next pull tries again
  const { digest } = found;
  return {
    ...published,
    format,
    downloadedBytes: found.downloadedBytes(),
    reusedBytes,
    digest,
    unchanged: false,
  };
}

async function stageChunks(
  task: Task,
  { catalog, known }: PullContext,
  { located: { templatePath }, options }: PullRequest,
  found: FoundArtifact,
  staged: string,
): Promise<StagedPull> {
  const { artifact } = found;
  const { sha256 } = contentOf(artifact);
  const image = {
    name: TEMPLATE_ROOTFS_FILE,
    chunked: chunkedImage(artifact),
    templates: (missingBytes: () => number) =>
      reusableTemplates(task, catalog, known, ({ path }) => path === templatePath, missingBytes),
  };
  const assembly = { ...found, known, onProgress: options.onProgress };
  const { lists, reusedBytes } = await assembleImages(task, [image], staged, assembly);
  return {
    format: 'raw',
    config: configOf(artifact),
    expectedSha256: sha256,
    reusedBytes,
    beforePlaced: async (digest) => {
      if (digest !== sha256)
        throw invalid('its file system has a journal to replay, which would change its digest');
      for (const list of lists) await known.put(sha256, list);
    },
  };
}

async function stageLayer(
  task: Task,
  { folder, disks }: PullContext,
  { reference, expectedSha256, limits, options }: PullRequest,
  found: FoundArtifact,
  { layer, path, staged }: { readonly layer: Layer; readonly path: string; readonly staged: string },
): Promise<StagedPull> {
  const { format, reusedBytes } = await folder.use(({ reflinks }) =>
    stageDisk(task, {
      ...found,
      layer,
      source: formatReference(reference),
      folder: path,
      image: join(staged, TEMPLATE_ROOTFS_FILE),
      sparse: { fillGaps: reflinks === true },
      limits,
      onProgress: options.onProgress,
    }),
  );
  return {
    format,
    config: undefined,
    expectedSha256,
    reusedBytes,
    // A process that is killed when the stack has just appeared must not leave it unknown.
    beforePlaced: (sha256) => disks.put(layer, { sha256, expectedSha256, format }),
  };
}

async function presentStack(
  task: Task,
  context: PullContext,
  request: PullRequest,
  { artifact, digest }: FoundArtifact,
): Promise<PulledStack | undefined> {
  const layer = diskLayer(artifact);
  if (layer === undefined) {
    const { sha256, sizeBytes } = contentOf(artifact);
    requireExpected(request, sha256);
    const found = await upToDate(task, context, request, sha256);
    // Otherwise all of the image is copied from the template: clones may be links to that.
    if (found !== undefined && (!request.replace || (await isLike(found, artifact))))
      return unchanged(found, 'raw', digest);
    requireWithinLimits(request, sizeBytes);
    return undefined;
  }
  const disk = await context.disks.get(layer, request.expectedSha256);
  const found = await upToDate(task, context, request, disk?.sha256);
  return found && disk && unchanged(found, disk.format, digest);
}

/** The stack, if it has this image. Rejects with `STACK_EXISTS` if it has another and that is not to be replaced. */
async function upToDate(
  task: Task,
  { catalog }: PullContext,
  { located, replace }: PullRequest,
  sha256: string | undefined,
): Promise<StackInfo | undefined> {
  const stack = await catalog.stack(located.name, task.signal);
  if (stack === undefined || stack.sha256 === sha256) return stack;
  if (!replace) throw stackExists(stack.templatePath);
  return undefined;
}

/** Throws `SOURCE_TOO_LARGE`. */
function requireWithinLimits({ reference, limits }: PullRequest, sizeBytes: number): void {
  if (limits?.maxBytes === undefined || sizeBytes <= limits.maxBytes) return;
  throw tooLarge(formatReference(reference), `holds an image of ${sizeBytes} bytes`, 'limits.maxBytes');
}

/** Whether the stack has the config of the artifact, and may be read by the same users. */
async function isLike({ templatePath, image }: StackInfo, artifact: Artifact): Promise<boolean> {
  const { mode } = await stat(templatePath);
  return isPrivate(mode) === keepsPrivate(artifact) && isDeepStrictEqual(image, configOf(artifact));
}

function keepsPrivate({ annotations }: Artifact): boolean {
  return annotations[ANNOTATION.private] !== undefined;
}

function unchanged(stack: StackInfo, format: ImageFormat, digest: string): PulledStack {
  const nothing = { downloadedBytes: 0, reusedBytes: stack.sizeBytes };
  return { ...stack, replaced: false, format, digest, ...nothing, unchanged: true };
}

/** What is known of images that have left the catalog. */
async function forgetOthers(catalog: Catalog, known: KnownChunks, disks: KnownDiskLayers): Promise<void> {
  const templates = [...(await catalog.templates(undefined)).values()];
  const digests = templates.map((template) => template?.sha256);
  // An image whose digest is not known may be any of them.
  if (!digests.every((digest) => digest !== undefined)) return;
  for (const each of [known, disks]) await each.keepOnly(new Set(digests));
}

function configOf({ annotations }: Artifact): ImageConfig | undefined {
  const text = annotations[ANNOTATION.image];
  if (text === undefined) return undefined;
  try {
    return parseImageConfig(JSON.parse(text));
  } catch {
    throw invalid('the image config in its annotations is not JSON');
  }
}
