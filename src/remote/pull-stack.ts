// Pulls a stack from a registry into the catalog. Only chunks that this host lacks are fetched.

import { chmod } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Catalog, StackInfo } from '../catalog/catalog.js';
import { type ImageConfig, parseImageConfig } from '../catalog/image-config.js';
import type { Templates } from '../catalog/templates.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { finishStack } from '../publish/finish-stack.js';
import { stackExists } from '../publish/place-stack.js';
import { PUBLIC_MODE, type PublishPrograms } from '../publish/publish.js';
import { asRootfsError, RootfsError } from '../system/errors.js';
import { flush } from '../system/flush.js';
import { isMissing } from '../system/is-missing.js';
import type { Task } from '../system/task.js';
import { ANNOTATION, type Artifact, contentOf, invalid, parseArtifact, STACK_TYPE } from './artifact.js';
import { assembleImage } from './assemble-image.js';
import { BlobReader } from './blob-reader.js';
import { type FetchedManifest, fetchManifest } from './fetch-manifest.js';
import type { KnownChunks } from './known-chunks.js';
import type { PullFolder } from './pull-folder.js';
import { formatReference, type Reference } from './reference.js';
import type { RegistryClient } from './registry-client.js';
import { Pace } from './retry.js';
import { reusableTemplates } from './reusable-templates.js';
import { concurrencyOf, withRegistry } from './transfer.js';
import type { PulledStack, PullOptions, TransferOptions } from './transfer-options.js';

export interface PullRequest {
  readonly located: ReturnType<Catalog['located']>;
  readonly reference: Reference;
  readonly replace: boolean;
  readonly expectedSha256: string | undefined;
  readonly platform: string | undefined;
  readonly verify: PullOptions['verify'];
  readonly options: TransferOptions;
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
  const { reference, located } = request;
  try {
    return await withRegistry(place.config.registries, reference, 'pull', async (sources) => {
      const manifest = await fetchManifest(task, sources, reference, request.platform);
      await request.verify?.({ reference: formatReference(reference), digest: manifest.digest });
      const artifact = parseArtifact(manifest);
      if (artifact.artifactType !== STACK_TYPE) throw otherKind(reference, artifact);
      const { sha256 } = contentOf(artifact);
      requireExpected(request, sha256);
      const before = await upToDate(task, place, request, sha256);
      if (before !== undefined) return unchanged(before, manifest);
      return await inCatalog(place.folder, () =>
        place.pulls.hold(task, manifest.digest, async (path) => {
          // Another process may have pulled it while this one waited.
          const now = await upToDate(task, place, request, sha256);
          if (now !== undefined) return unchanged(now, manifest);
          void place.pulls.removeOld(task).catch(() => {}); // the next pull tries again
          try {
            const pulled = await pullInto(task, place, request, sources, artifact, join(path, 'stack'));
            await place.pulls.discard(path);
            return { ...pulled, digest: manifest.digest, unchanged: false };
          } catch (error) {
            if (isLasting(error)) await place.pulls.discard(path);
            throw error;
          }
        }),
      );
    });
  } catch (error) {
    throw asRootfsError(`${task.what} as ${located.name}`, error);
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
  sources: readonly RegistryClient[],
  artifact: Artifact,
  staged: string,
): Promise<Omit<PulledStack, 'digest' | 'unchanged'>> {
  const { name, templatePath } = located;
  const { sha256, sizeBytes } = contentOf(artifact);
  const source = formatReference(reference);
  const pace = new Pace(concurrencyOf(options));
  let downloadedBytes = 0;
  const { list, reusedBytes } = await assembleImage(task, artifact, staged, {
    reader: new BlobReader(sources),
    pace,
    readOptions: {
      onBytes: (count) => {
        downloadedBytes += count;
      },
      onBusy: pace.slowDown,
    },
    known,
    templates: () => reusableTemplates(task, catalog, known, templatePath),
    onProgress: options.onProgress,
  });
  await chmod(staged, 0o755);
  const published = await folder.use(({ handle }) =>
    finishStack(task, handle, templates, config.e2fsckBin, {
      name,
      templatePath,
      staged,
      source,
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
  await known.put(sha256, list);
  await forgetOthers(catalog, known).catch(() => {}); // the next pull tries again
  return { ...published, sizeBytes, format: 'raw', downloadedBytes, reusedBytes };
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

function unchanged(stack: StackInfo, { digest }: FetchedManifest): PulledStack {
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

function requireExpected({ reference, expectedSha256 }: PullRequest, sha256: string): void {
  if (expectedSha256 === undefined || expectedSha256.toLowerCase() === sha256) return;
  throw new RootfsError(
    'DIGEST_MISMATCH',
    `${formatReference(reference)} is an image with the SHA-256 ${sha256} rather than ${expectedSha256}: ` +
      'correct the reference or the digest',
  );
}

function otherKind(reference: Reference, { artifactType }: Artifact): RootfsError {
  return invalid(
    `${formatReference(reference)} is of type ${artifactType || 'unknown'}, not a stack; ` +
      `for a container image use publishStack('${reference.repository}', 'docker://…')`,
  );
}

/** What was fetched is of no use for another try. */
function isLasting(error: unknown): boolean {
  const codes = ['ARTIFACT_INVALID', 'DIGEST_MISMATCH', 'IMAGE_INVALID', 'TEMPLATE_CORRUPT', 'E2FSCK_FAILED'];
  return error instanceof RootfsError && codes.includes(error.code);
}
