// Tells what a reference names before anything is fetched: from its manifest and its indexes alone.

import { basename, dirname } from 'node:path';
import type { Catalog } from '../catalog/catalog.js';
import { CLONE_ROOTFS_FILE } from '../slot/stamps.js';
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
import { bytesToFetch } from './fetch-pack.js';
import type { KnownChunks } from './known-chunks.js';
import { defaultName, formatReference, type Reference } from './reference.js';
import { type IsLikely, reusableTemplates } from './reusable-templates.js';
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
      const name = defaultName(reference);
      return { ...about, ...(await contentFacts(task, context, artifact, new BlobReader(clients), name)) };
    });
  } catch (error) {
    throw asRootfsError(task.what, error);
  }
}

/** Nothing of artifacts of other kinds. */
async function contentFacts(
  task: Task,
  context: InspectContext,
  artifact: Artifact,
  reader: BlobReader,
  name: string,
) {
  const missing = async (files: readonly ChunkedFile[], disk: number, isLikely: IsLikely) => ({
    ...contentOf(artifact),
    missingBytes: await missingBytes(task, context, files, disk, isLikely, reader),
  });
  if (artifact.artifactType === STACK_TYPE) {
    const ofName: IsLikely = ({ path }) => basename(dirname(path)) === name;
    return missing([chunkedImage(artifact)], 0, ofName);
  }
  if (artifact.artifactType !== SNAPSHOT_TYPE) return {};
  const { record, files } = await readSnapshot(task, artifact, reader);
  const disk = record.files.findIndex(({ name }) => name === CLONE_ROOTFS_FILE);
  const isSource: IsLikely = ({ sha256 }) => sha256 === record.sourceSha256;
  return { ...(await missing(files, disk, isSource)), snapshot: factsOf(record) };
}

/** Of a file: what would be fetched. */
interface Missing {
  readonly list: ChunkList;
  readonly chunks: ChunkSet;
  readonly index: DigestIndex;
  /** Of the chunks. */
  bytes: number;
}

/** As a pull does: templates give chunks of the disk, and files those that another one has too. */
async function missingBytes(
  task: Task,
  { catalog, known }: InspectContext,
  files: readonly ChunkedFile[],
  disk: number,
  isLikely: IsLikely,
  reader: BlobReader,
): Promise<number> {
  const lists = await fetchLists(task, files, reader);
  const missing: Missing[] = [];
  for (const list of lists) {
    const chunks = await ChunkSet.ofData(list);
    missing.push({ list, chunks, index: await DigestIndex.of(chunks), bytes: list.dataBytes });
  }
  const pause = new Pause(() => task.checkAborted());
  const ofDisk = missing[disk] as Missing;
  const left = () => ofDisk.bytes;
  for await (const { sha256, identity } of reusableTemplates(task, catalog, known, isLikely, left, false)) {
    if (ofDisk.chunks.size === 0) break;
    const local = await known.get(sha256, identity.sizeBytes);
    if (local === undefined) continue;
    for (let i = 0; i < local.count; i++) {
      if (pause.isDue) await pause.take();
      const digest = local.sha256(i);
      // The other files have it from the disk.
      if (!local.isZero(i) && ofDisk.index.has(digest)) await take(missing, digest, pause);
    }
  }
  let bytes = 0;
  for (const [at, { list, chunks }] of missing.entries()) {
    for (const pack of list.packs) {
      if (pause.isDue) await pause.take();
      bytes += bytesToFetch({ list, pack, wanted: chunks });
    }
    await takeFrom(missing.slice(at + 1), list, pause);
  }
  return bytes;
}

/** Takes the chunks of a list from all files. */
async function takeFrom(files: readonly Missing[], list: ChunkList, pause: Pause): Promise<void> {
  for (let i = 0; i < list.count; i++) {
    if (pause.isDue) await pause.take();
    if (!list.isZero(i)) await take(files, list.sha256(i), pause);
  }
}

async function take(files: readonly Missing[], digest: Buffer, pause: Pause): Promise<void> {
  for (const file of files)
    for (const chunk of file.index.take(digest)) {
      file.chunks.delete(chunk);
      file.bytes -= file.list.length(chunk);
      if (pause.isDue) await pause.take();
    }
}
