// Tells what a reference names before anything is fetched: from its manifest and its indexes alone.

import type { Catalog } from '../catalog/catalog.js';
import { factsOf } from '../snapshots/snapshot-manifest.js';
import type { RegistrySettings } from '../system/config.js';
import { asRootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';
import { type Artifact, contentOf, parseArtifact, SNAPSHOT_TYPE, STACK_TYPE } from './artifact.js';
import { BlobReader } from './blob-reader.js';
import type { ChunkList } from './chunk-list.js';
import { fetchManifest } from './fetch-manifest.js';
import type { KnownChunks } from './known-chunks.js';
import { fetchLists, type PackedFile, packedImage, type Reading } from './packed-file.js';
import { formatReference, type Reference } from './reference.js';
import { templatesOf } from './reusable-templates.js';
import { readSnapshot } from './snapshot-artifact.js';
import { withRegistry } from './transfer.js';
import type { RemoteArtifact } from './transfer-options.js';

export interface InspectPlace {
  readonly catalog: Catalog;
  readonly known: KnownChunks;
  readonly registries: RegistrySettings;
}

export async function inspectReference(
  task: Task,
  place: InspectPlace,
  reference: Reference,
  platform: string | undefined,
): Promise<RemoteArtifact> {
  try {
    return await withRegistry(place.registries, reference, 'pull', async (sources) => {
      const manifest = await fetchManifest(task, sources, reference, platform);
      const artifact = parseArtifact(manifest);
      const about = {
        reference: formatReference(reference),
        digest: manifest.digest,
        artifactType: artifact.artifactType,
        storedBytes: artifact.layers.reduce((sum, { size }) => sum + size, 0),
      };
      const reading = { reader: new BlobReader(sources), readOptions: {} };
      return { ...about, ...(await contentFacts(task, place, artifact, reading)) };
    });
  } catch (error) {
    throw asRootfsError(task.what, error);
  }
}

/** Nothing of artifacts of other kinds. */
async function contentFacts(task: Task, place: InspectPlace, artifact: Artifact, reading: Reading) {
  const missing = async (files: readonly PackedFile[]) => ({
    ...contentOf(artifact),
    missingBytes: await missingBytes(task, place, files, reading),
  });
  if (artifact.artifactType === STACK_TYPE) return missing([packedImage(artifact)]);
  if (artifact.artifactType !== SNAPSHOT_TYPE) return {};
  const { record, files } = await readSnapshot(task, artifact, reading);
  return { ...(await missing(files)), snapshot: factsOf(record) };
}

async function missingBytes(
  task: Task,
  { catalog, known }: InspectPlace,
  files: readonly PackedFile[],
  reading: Reading,
): Promise<number> {
  const lists = await fetchLists(task, files, reading);
  const templates = await templatesOf(task, catalog);
  const local = await Promise.all(
    templates.map(({ sha256, identity }) => known.get(sha256, identity.sizeBytes)),
  );
  return missingFrom(
    lists,
    local.filter((each) => each !== undefined),
  );
}

/** Compressed bytes of the chunks that none of the local lists has. */
function missingFrom(lists: readonly ChunkList[], local: readonly ChunkList[]): number {
  const missing = new Map<string, number>();
  for (const list of lists)
    for (let i = 0; i < list.count; i++)
      if (!list.isZero(i)) missing.set(list.sha256(i).toString('latin1'), list.frameBytes(i));
  for (const each of local)
    for (let i = 0; i < each.count; i++) missing.delete(each.sha256(i).toString('latin1'));
  return [...missing.values()].reduce((sum, bytes) => sum + bytes, 0);
}
