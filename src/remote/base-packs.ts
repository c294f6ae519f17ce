// Packs of an artifact in the same registry that a push can use as they are.

import { createHash } from 'node:crypto';
import type { Task } from '../system/task.js';
import { type Layer, parseArtifact } from './artifact.js';
import { BlobReader } from './blob-reader.js';
import type { ChunkList } from './chunk-list.js';
import { fetchManifest } from './fetch-manifest.js';
import { fetchLists, type PackedFile } from './packed-file.js';
import type { Reference } from './reference.js';
import type { RegistryClient } from './registry-client.js';
import { packedFiles } from './snapshot-artifact.js';

/** Packs by the digests of their chunks. */
export interface BasePacks {
  readonly repository: string;
  readonly packs: ReadonlyMap<string, BasePack>;
}

interface BasePack {
  readonly layer: Layer;
  readonly frameBytes: readonly number[];
}

/** Rejects with `REGISTRY_NOT_FOUND`, `ARTIFACT_INVALID`. */
export async function basePacks(task: Task, client: RegistryClient, base: Reference): Promise<BasePacks> {
  const source = client.of(base.repository);
  const artifact = parseArtifact(await fetchManifest(task, [source], base, undefined));
  const reading = { reader: new BlobReader([source]), readOptions: {} };
  const packs = new Map<string, BasePack>();
  const files = await packedFiles(task, artifact, reading);
  const lists = await fetchLists(task, files, reading);
  for (const [file, list] of lists.entries()) {
    const layers = (files[file] as PackedFile).packs;
    for (const [i, { first, end }] of list.packs.entries()) {
      const frameBytes = Array.from({ length: end - first }, (_, k) => list.frameBytes(first + k));
      packs.set(packKey(list, first, end), { layer: layers[i] as Layer, frameBytes });
    }
  }
  if (base.repository !== client.repository) client.willMountFrom(base.repository);
  return { repository: base.repository, packs };
}

/** Two packs with the same key hold the same bytes of an image. */
export function packKey(list: ChunkList, first: number, end: number): string {
  const hash = createHash('sha256');
  for (let i = first; i < end; i++) hash.update(list.isZero(i) ? `zeros ${list.length(i)} ` : list.sha256(i));
  return hash.digest('hex');
}
