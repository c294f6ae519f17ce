// Tells what a reference names before anything is fetched: from its manifest and its index alone.

import type { Catalog } from '../catalog/catalog.js';
import type { RegistrySettings } from '../system/config.js';
import { asRootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';
import { contentOf, parseArtifact, STACK_TYPE } from './artifact.js';
import { BlobReader } from './blob-reader.js';
import type { ChunkList } from './chunk-list.js';
import { fetchManifest } from './fetch-manifest.js';
import type { KnownChunks } from './known-chunks.js';
import { fetchList, packedImage } from './packed-file.js';
import { formatReference, type Reference } from './reference.js';
import { templatesOf } from './reusable-templates.js';
import { withRegistry } from './transfer.js';
import type { RemoteArtifact } from './transfer-options.js';

export interface InspectPlace {
  readonly catalog: Catalog;
  readonly known: KnownChunks;
  readonly registries: RegistrySettings;
}

export async function inspectReference(
  task: Task,
  { catalog, known, registries }: InspectPlace,
  reference: Reference,
  platform: string | undefined,
): Promise<RemoteArtifact> {
  try {
    return await withRegistry(registries, reference, 'pull', async (sources) => {
      const manifest = await fetchManifest(task, sources, reference, platform);
      const artifact = parseArtifact(manifest);
      const about = {
        reference: formatReference(reference),
        digest: manifest.digest,
        artifactType: artifact.artifactType,
        storedBytes: artifact.layers.reduce((sum, { size }) => sum + size, 0),
      };
      if (artifact.artifactType !== STACK_TYPE) return about;
      const list = await fetchList(task, packedImage(artifact), {
        reader: new BlobReader(sources),
        readOptions: {},
      });
      const templates = await templatesOf(task, catalog);
      const local = await Promise.all(
        templates.map(({ sha256, identity }) => known.get(sha256, identity.sizeBytes)),
      );
      const lists = local.filter((each) => each !== undefined);
      return { ...about, ...contentOf(artifact), missingBytes: missingFrom(list, lists) };
    });
  } catch (error) {
    throw asRootfsError(task.what, error);
  }
}

/** Compressed bytes of the chunks that none of the lists has. */
function missingFrom(list: ChunkList, lists: readonly ChunkList[]): number {
  const missing = new Map<string, number>();
  for (let i = 0; i < list.count; i++)
    if (!list.isZero(i)) missing.set(list.sha256(i).toString('latin1'), list.frameBytes(i));
  for (const each of lists)
    for (let i = 0; i < each.count; i++) missing.delete(each.sha256(i).toString('latin1'));
  return [...missing.values()].reduce((sum, bytes) => sum + bytes, 0);
}
