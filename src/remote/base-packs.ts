// Packs of an artifact in the same registry that a push can use as they are.

import { createHash } from 'node:crypto';
import { Pause } from '../system/pause.js';
import type { Task } from '../system/task.js';
import { ANNOTATION, artifactOf, type Layer } from './artifact.js';
import { BlobReader } from './blob-reader.js';
import type { ChunkList } from './chunk-list.js';
import { type ChunkedFile, fetchLists } from './chunked-file.js';
import { fetchManifest } from './fetch-manifest.js';
import type { Reference } from './reference.js';
import type { RegistryClient } from './registry-client.js';
import { chunkedFiles } from './snapshot-artifact.js';
import type { PushOptions } from './transfer-options.js';

/** Packs by the digests of their chunks. */
export interface BasePacks {
  readonly repository: string;
  readonly packs: ReadonlyMap<string, BasePack>;
}

interface BasePack {
  readonly layer: Layer;
  readonly frameBytes: readonly number[];
}

interface BaseRequest {
  readonly reference: Reference;
  readonly base: Reference | undefined;
  readonly options: PushOptions;
}

/**
 * Packs of the base, or else of what the tag names if that has the content `sha256`: it then stays as it is. Packs of
 * other content are not used unasked: made by another version of zstd, they would give the same image another digest.
 * Rejects with `REGISTRY_NOT_FOUND`, `ARTIFACT_INVALID` for the base.
 */
export async function packsToReuse(
  task: Task,
  client: RegistryClient,
  { reference, base, options }: BaseRequest,
  sha256: string,
): Promise<BasePacks | undefined> {
  if (base !== undefined) return packsOf(task, client, base);
  if (options.level !== undefined) return undefined;
  try {
    return await packsOf(task, client, reference, sha256);
  } catch {
    // There is none, or it is damaged: the push is what replaces it. What else is wrong will fail the push itself.
    task.checkAborted();
    return undefined;
  }
}

/** Undefined unless the content is `sha256`, if that is given. */
async function packsOf(
  task: Task,
  client: RegistryClient,
  base: Reference,
  sha256?: string,
): Promise<BasePacks | undefined> {
  const isSame = base.repository === client.repository;
  const baseClient = isSame ? client : client.forRepository(base.repository);
  const { value } = await fetchManifest(task, [baseClient], base, undefined);
  const artifact = await artifactOf(value);
  if (sha256 !== undefined && artifact.annotations[ANNOTATION.sha256] !== sha256) return undefined;
  const reader = new BlobReader([baseClient]);
  const packs = new Map<string, BasePack>();
  const pause = new Pause(() => task.checkAborted());
  const files = await chunkedFiles(task, artifact, reader);
  const lists = await fetchLists(task, files, reader);
  for (const [file, list] of lists.entries()) {
    const layers = (files[file] as ChunkedFile).packs;
    for (const [i, { first, end }] of list.packs.entries()) {
      if (pause.isDue) await pause.take();
      const frameBytes = Array.from({ length: end - first }, (_, k) => list.frameBytes(first + k));
      packs.set(packKey(list, first, end), { layer: layers[i] as Layer, frameBytes });
    }
  }
  if (!isSame) client.willMountFrom(base.repository);
  return { repository: base.repository, packs };
}

/** Two packs with the same key hold the same bytes of an image. */
export function packKey(list: ChunkList, first: number, end: number): string {
  const hash = createHash('sha256');
  for (let i = first; i < end; i++) hash.update(list.isZero(i) ? `zeros ${list.length(i)} ` : list.sha256(i));
  return hash.digest('hex');
}
