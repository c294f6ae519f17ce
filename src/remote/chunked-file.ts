// A file in an artifact: its packs in order, and the index that tells which chunks are in them.

import { Pause } from '../system/pause.js';
import type { Task } from '../system/task.js';
import { type Artifact, contentOf, INDEX_TYPE, invalid, type Layer, PACK_TYPE } from './artifact.js';
import type { BlobReader } from './blob-reader.js';
import { ChunkList } from './chunk-list.js';
import { fetchBlob } from './fetch-blob.js';
import { LIST_BYTES_LIMIT } from './known-chunks.js';

/** Ours have at most 12 MiB for usual images, and 768 MiB for one of a terabyte. */
const PACK_LIMIT = 1024 * 1024 * 1024;

export interface ChunkedFile {
  readonly packs: readonly Layer[];
  readonly index: Layer;
  readonly sizeBytes: number;
}

/** The image of a stack. Throws `ARTIFACT_INVALID`. */
export function chunkedImage(artifact: Artifact): ChunkedFile {
  return chunkedFile(artifact.layers, contentOf(artifact).sizeBytes, 'it');
}

/** `whose` is used in messages. Throws `ARTIFACT_INVALID`. */
export function chunkedFile(layers: readonly Layer[], sizeBytes: number, whose: string): ChunkedFile {
  const indexes = layers.filter(({ mediaType }) => mediaType === INDEX_TYPE);
  const [index] = indexes;
  if (index === undefined || indexes.length > 1)
    throw invalid(`${whose} has ${indexes.length} index layers, not one`);
  return { packs: layers.filter(({ mediaType }) => mediaType === PACK_TYPE), index, sizeBytes };
}

/** The lists of all files of an artifact. Rejects with `ARTIFACT_INVALID` if they are too long to be kept in memory. */
export async function fetchLists(
  task: Task,
  files: readonly ChunkedFile[],
  reader: BlobReader,
): Promise<ChunkList[]> {
  const bytes = files.reduce((sum, { index }) => sum + index.size, 0);
  if (bytes > LIST_BYTES_LIMIT) throw invalid(`its indexes have ${bytes} bytes`);
  const lists: ChunkList[] = [];
  for (const file of files) lists.push(await fetchList(task, file, reader));
  return lists;
}

/** Rejects with `ARTIFACT_INVALID` for an index that does not fit the packs. */
async function fetchList(
  task: Task,
  { packs, index, sizeBytes }: ChunkedFile,
  reader: BlobReader,
): Promise<ChunkList> {
  const list = await ChunkList.parse(await fetchBlob(task, reader, index));
  if (list.sizeBytes !== sizeBytes) throw invalid('its index is of an image of another size');
  if (list.packs.length !== packs.length || list.packs.some((pack, i) => pack.sizeBytes !== packs[i]?.size))
    throw invalid('its index does not fit its packs');
  await requireFrames(list);
  return list;
}

/** Frames are fetched into memory before zstd or a digest sees them, a pack at a time. */
async function requireFrames(list: ChunkList): Promise<void> {
  await new Pause().inRanges(0, list.count, (first, end) => {
    for (let i = first; i < end; i++) {
      const [length, frameBytes] = [list.length(i), list.frameBytes(i)];
      // A little above what zstd makes of bytes that cannot be compressed, headers included.
      if (frameBytes > length + length / 256 + 1024)
        throw invalid(`its index has ${frameBytes} compressed bytes for the ${length} of chunk ${i}`);
    }
  });
  for (const [i, { sizeBytes }] of list.packs.entries())
    if (sizeBytes > PACK_LIMIT) throw invalid(`its pack ${i} has ${sizeBytes} bytes`);
}
