// A file in an artifact: its packs in order, and the index that tells which chunks are in them.

import type { Task } from '../system/task.js';
import { type Artifact, contentOf, INDEX_TYPE, invalid, type Layer, PACK_TYPE } from './artifact.js';
import type { BlobReader, ReadOptions } from './blob-reader.js';
import { ChunkList } from './chunk-list.js';
import { fetchBlob } from './fetch-pack.js';
import { LIST_BYTES_LIMIT } from './known-chunks.js';

export interface PackedFile {
  readonly packs: readonly Layer[];
  readonly index: Layer;
  readonly sizeBytes: number;
}

/** How blobs are read. */
export interface Reading {
  readonly reader: BlobReader;
  readonly readOptions: ReadOptions;
}

/** The image of a stack. Throws `ARTIFACT_INVALID`. */
export function packedImage(artifact: Artifact): PackedFile {
  return packedFile(artifact.layers, contentOf(artifact).sizeBytes, 'it');
}

/** `whose` is used in messages. Throws `ARTIFACT_INVALID`. */
export function packedFile(layers: readonly Layer[], sizeBytes: number, whose: string): PackedFile {
  const indexes = layers.filter(({ mediaType }) => mediaType === INDEX_TYPE);
  const [index] = indexes;
  if (index === undefined || indexes.length > 1)
    throw invalid(`${whose} has ${indexes.length} index layers, not one`);
  return { packs: layers.filter(({ mediaType }) => mediaType === PACK_TYPE), index, sizeBytes };
}

/** Rejects with `ARTIFACT_INVALID` for an index that does not fit the packs. */
export async function fetchList(
  task: Task,
  { packs, index, sizeBytes }: PackedFile,
  { reader, readOptions }: Reading,
): Promise<ChunkList> {
  if (index.size > LIST_BYTES_LIMIT) throw invalid(`its index has ${index.size} bytes`);
  const list = ChunkList.parse(await fetchBlob(task, reader, index, readOptions));
  if (list.sizeBytes !== sizeBytes) throw invalid('its index is of an image of another size');
  if (list.packs.length !== packs.length || list.packs.some((pack, i) => pack.sizeBytes !== packs[i]?.size))
    throw invalid('its index does not fit its packs');
  return list;
}
