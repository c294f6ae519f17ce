// Tells what a reference names before anything is fetched: from its manifest and its indexes alone.

import { stat } from 'node:fs/promises';
import type { Catalog } from '../catalog/catalog.js';
import type { Template } from '../catalog/template.js';
import { factsOf } from '../snapshots/snapshot-manifest.js';
import type { RegistrySettings } from '../system/config.js';
import { asRootfsError } from '../system/errors.js';
import { Pause } from '../system/pause.js';
import type { Task } from '../system/task.js';
import { type Artifact, artifactOf, contentOf, SNAPSHOT_TYPE, STACK_TYPE } from './artifact.js';
import { BlobReader } from './blob-reader.js';
import type { ChunkList } from './chunk-list.js';
import { ChunkSet } from './chunk-set.js';
import { type ChunkedFile, chunkedImage, fetchLists } from './chunked-file.js';
import { DigestIndex } from './digest-index.js';
import { fetchManifest } from './fetch-manifest.js';
import type { KnownChunks } from './known-chunks.js';
import { formatReference, type Reference } from './reference.js';
import { hashTemplate } from './reusable-templates.js';
import { readSnapshot } from './snapshot-artifact.js';
import type { RemoteArtifact } from './transfer-options.js';
import { withRegistry } from './with-registry.js';

interface InspectContext {
  readonly catalog: Catalog;
  readonly known: KnownChunks;
  readonly registries: RegistrySettings;
}

export async function inspectReference(
  task: Task,
  context: InspectContext,
  reference: Reference,
  platform: string | undefined,
): Promise<RemoteArtifact> {
  try {
    return await withRegistry(context.registries, reference, 'pull', async (clients) => {
      const manifest = await fetchManifest(task, clients, reference, platform);
      const artifact = await artifactOf(manifest.value);
      const about = {
        reference: formatReference(reference),
        digest: manifest.digest,
        artifactType: artifact.artifactType,
        storedBytes: artifact.layers.reduce((sum, { size }) => sum + size, 0),
      };
      return { ...about, ...(await contentFacts(task, context, artifact, new BlobReader(clients))) };
    });
  } catch (error) {
    throw asRootfsError(task.what, error);
  }
}

/** Nothing of artifacts of other kinds. */
async function contentFacts(task: Task, context: InspectContext, artifact: Artifact, reader: BlobReader) {
  const missing = async (files: readonly ChunkedFile[]) => ({
    ...contentOf(artifact),
    missingBytes: await missingBytes(task, context, files, reader),
  });
  if (artifact.artifactType === STACK_TYPE) return missing([chunkedImage(artifact)]);
  if (artifact.artifactType !== SNAPSHOT_TYPE) return {};
  const { record, files } = await readSnapshot(task, artifact, reader);
  return { ...(await missing(files)), snapshot: factsOf(record) };
}

async function missingBytes(
  task: Task,
  { catalog, known }: InspectContext,
  files: readonly ChunkedFile[],
  reader: BlobReader,
): Promise<number> {
  const lists = await fetchLists(task, files, reader);
  const missing: DigestIndex[] = [];
  for (const list of lists) missing.push(await DigestIndex.of(await ChunkSet.ofData(list)));
  const pause = new Pause(() => task.checkAborted());
  for (const { sha256, identity } of await templatesWithLists(task, catalog, known)) {
    const local = await known.get(sha256, identity.sizeBytes);
    if (local !== undefined) await takeFrom(missing, local, pause);
  }
  // What is left, each chunk once.
  let bytes = 0;
  for (const list of lists) bytes += await takeFrom(missing, list, pause);
  return bytes;
}

/** A template is hashed only where a list of its length belongs to no other: else its digest would tell nothing. */
async function templatesWithLists(task: Task, catalog: Catalog, known: KnownChunks): Promise<Template[]> {
  const templates = await catalog.templates(task.signal);
  const lists = new Set(await known.names());
  for (const template of templates.values()) if (template !== undefined) lists.delete(template.sha256);
  for (const [name, template] of templates) {
    if (template !== undefined || lists.size === 0) continue;
    const found = await stat(catalog.templatePath(name)).catch(() => undefined);
    if (found === undefined) continue;
    for (const sha256 of lists) {
      if ((await known.get(sha256, found.size)) === undefined) continue;
      await hashTemplate(task, catalog, name);
      break;
    }
  }
  return catalog.known(task.signal);
}

/** Takes the chunks of a list from all indexes. Returns the compressed bytes of those that were there. */
async function takeFrom(indexes: readonly DigestIndex[], list: ChunkList, pause: Pause): Promise<number> {
  let bytes = 0;
  for (let i = 0; i < list.count; i++) {
    if (pause.isDue) await pause.take();
    const digest = list.sha256(i);
    if (list.isZero(i) || !indexes.some((index) => index.has(digest))) continue;
    bytes += list.frameBytes(i);
    for (const index of indexes) for (const _ of index.take(digest)) if (pause.isDue) await pause.take();
  }
  return bytes;
}
