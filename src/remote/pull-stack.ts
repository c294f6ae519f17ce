// Pulls a stack from a registry into the catalog. Only chunks that this host lacks are fetched.

import { chmod } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type Catalog, type StackInfo, TEMPLATE_ROOTFS_FILE } from '../catalog/catalog.js';
import { type ImageConfig, parseImageConfig } from '../catalog/image-config.js';
import type { Templates } from '../catalog/templates.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { finishStack } from '../publish/finish-stack.js';
import { stackExists } from '../publish/place-stack.js';
import { PUBLIC_MODE, type PublishPrograms } from '../publish/publish.js';
import { asRootfsError } from '../system/errors.js';
import { flush } from '../system/flush.js';
import { isMissing } from '../system/is-missing.js';
import type { Task } from '../system/task.js';
import { ANNOTATION, type Artifact, contentOf, invalid, STACK_TYPE } from './artifact.js';
import { assembleImages } from './assemble-image.js';
import type { KnownChunks } from './known-chunks.js';
import { packedImage } from './packed-file.js';
import { type ArtifactRequest, type Found, pullArtifact } from './pull-artifact.js';
import type { PullFolder } from './pull-folder.js';
import { formatReference } from './reference.js';
import { reusableTemplates } from './reusable-templates.js';
import type { PulledStack } from './transfer-options.js';

export interface PullRequest extends Omit<ArtifactRequest, 'artifactType'> {
  readonly located: ReturnType<Catalog['located']>;
  readonly replace: boolean;
}

export interface PullPlace {
  readonly folder: ManagedFolder;
  readonly pulls: PullFolder;
  readonly catalog: Catalog;
  readonly templates: Templates;
  readonly known: KnownChunks;
  readonly config: PublishPrograms;
}

export async function pullStack(task: Task, place: PullPlace, request: PullRequest): Promise<PulledStack> {
  const { folder, pulls, config } = place;
  try {
    const stack = { ...request, artifactType: STACK_TYPE };
    return await pullArtifact<PulledStack>(task, config.registries, pulls, stack, {
      present: async ({ artifact, digest }) => {
        const found = await upToDate(task, place, request, contentOf(artifact).sha256);
        return found && unchanged(found, digest);
      },
      inFolder: (work) => inCatalog(folder, work),
      pull: (found, path) => pullInto(task, place, request, found, join(path, 'stack')),
    });
  } catch (error) {
    throw asRootfsError(`${task.what} as ${request.located.name}`, error);
  }
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
  { folder, catalog, templates, known, config }: PullPlace,
  { reference, located, replace, options }: PullRequest,
  found: Found,
  staged: string,
): Promise<PulledStack> {
  const { name, templatePath } = located;
  const { artifact, digest } = found;
  const { sha256, sizeBytes } = contentOf(artifact);
  const image = {
    name: TEMPLATE_ROOTFS_FILE,
    packed: packedImage(artifact),
    templates: () => reusableTemplates(task, catalog, known, ({ path }) => path === templatePath),
  };
  const parts = { ...found, known, onProgress: options.onProgress };
  const { lists, reusedBytes } = await assembleImages(task, [image], staged, parts);
  await chmod(staged, 0o755);
  const published = await folder.use(({ handle }) =>
    finishStack(task, handle, templates, config.e2fsckBin, {
      name,
      templatePath,
      staged,
      source: formatReference(reference),
      mode: PUBLIC_MODE,
      config: configOf(artifact),
      requireDigest: (found) => {
        if (found !== sha256)
          throw invalid('its file system has a journal to replay, which would change its digest');
      },
      options: {
        replace,
        expectedSha256: sha256,
        onProgress: ({ bytesDone, bytesTotal }) =>
          options.onProgress?.({ step: 'check', bytesDone, bytesTotal, reusedBytes }),
      },
    }),
  );
  for (const list of lists) await known.put(sha256, list);
  await forgetOthers(catalog, known).catch(() => {}); // the next pull tries again
  const downloadedBytes = found.downloadedBytes();
  return { ...published, sizeBytes, format: 'raw', downloadedBytes, reusedBytes, digest, unchanged: false };
}

/** The stack, if it has this image. Rejects with `STACK_EXISTS` if it has another and that is not to be replaced. */
async function upToDate(
  task: Task,
  { catalog }: PullPlace,
  { located, replace }: PullRequest,
  sha256: string,
): Promise<StackInfo | undefined> {
  const stack = await catalog.stack(located.name, task.signal);
  if (stack?.sha256 === sha256) return stack;
  if (stack !== undefined && !replace) throw stackExists(stack.templatePath);
  return undefined;
}

function unchanged(stack: StackInfo, digest: string): PulledStack {
  const nothing = { downloadedBytes: 0, reusedBytes: stack.sizeBytes };
  return { ...stack, replaced: false, format: 'raw', digest, ...nothing, unchanged: true };
}

/** Chunk lists of images that have left the catalog. */
async function forgetOthers(catalog: Catalog, known: KnownChunks): Promise<void> {
  const templates = [...(await catalog.templates(undefined)).values()];
  const digests = templates.map((template) => template?.sha256);
  // An image whose digest is not known may be any of them.
  if (digests.every((digest) => digest !== undefined)) await known.keepOnly(new Set(digests));
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
