// Uploads an image, of a disk or of a VM's memory, as packs and an index. Packs that the registry has already are not
// sent.

import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { RootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';
import { INDEX_TYPE, type Layer, PACK_TYPE } from './artifact.js';
import { type BasePacks, packKey } from './base-packs.js';
import type { Blob } from './blob-reader.js';
import { Buffers } from './buffers.js';
import { CHUNK_LIMIT, type ChunkList } from './chunk-list.js';
import type { Pace } from './pace.js';
import { PackFile } from './pack-file.js';
import { blobOfPieces, piecesOf } from './pieces.js';
import type { RegistryClient } from './registry-client.js';
import type { Body } from './transport.js';

export interface PushedImage {
  /** The packs in order, then the index. */
  readonly layers: readonly Layer[];
  readonly uploadedBytes: number;
  readonly reusedBytes: number;
}

interface PushImage {
  readonly client: RegistryClient;
  readonly pace: Pace;
  readonly file: FileHandle;
  readonly list: ChunkList;
  /** Where each pack ends, as an index into the chunks. */
  readonly ends: readonly number[];
  /** Annotations of each layer. */
  readonly annotations: Readonly<Record<string, string>>;
  readonly level: number;
  /** For temporary files. */
  readonly workFolder: string;
  /** Packs of an artifact in the same registry that can be used as they are. */
  readonly base: BasePacks | undefined;
  readonly onPack: (imageBytes: number, wasSent: boolean) => void;
}

interface Span {
  readonly index: number;
  readonly first: number;
  readonly end: number;
}

/** The tag is not touched: that is left to the caller, when all blobs are there. */
export async function pushImage(task: Task, image: PushImage): Promise<PushedImage> {
  const { client, pace, list, ends, annotations } = image;
  const spans: Span[] = ends.map((end, index) => ({ index, first: ends[index - 1] ?? 0, end }));
  const layers: Layer[] = [];
  const frameBytes = new Uint32Array(list.count);
  const buffers = new Buffers(CHUNK_LIMIT);
  const sums = { uploadedBytes: 0, reusedBytes: 0 };
  const count = (layer: Layer, wasSent: boolean) => {
    sums[wasSent ? 'uploadedBytes' : 'reusedBytes'] += layer.size;
  };
  await pace.forEach(task, spans, async (each, span) => {
    const known = image.base?.packs.get(packKey(list, span.first, span.end));
    const { layer, lengths, wasSent } =
      known !== undefined && (await isThere(each, image, known.layer))
        ? { layer: known.layer, lengths: known.frameBytes, wasSent: false }
        : await sendPack(each, image, span, buffers);
    frameBytes.set(lengths, span.first);
    layers[span.index] = { ...layer, annotations };
    count(layer, wasSent);
    image.onPack(list.offset(span.end) - list.offset(span.first), wasSent);
  });
  const { bytes: index } = await list.withFrames(ends, frameBytes);
  const layer = { ...(await blobOfPieces(piecesOf(index))), mediaType: INDEX_TYPE, annotations };
  count(layer, await sendBlob(task, client, layer, () => index));
  return { layers: [...layers, layer], ...sums };
}

/** In this repository, or taken over from that of the base. */
async function isThere(task: Task, { client, base }: PushImage, { digest, size }: Layer): Promise<boolean> {
  const isKnown = async () => (await client.stateOf(task, digest, size)) === 'there';
  if (await isKnown()) return true;
  const from = base?.repository;
  if (from === undefined || from === client.repository) return false;
  return (await client.mount(task, digest, from)) && isKnown();
}

async function sendPack(
  task: Task,
  image: PushImage,
  { index, first, end }: Span,
  buffers: Buffers,
): Promise<{ layer: Layer; lengths: readonly number[]; wasSent: boolean }> {
  const folder = join(image.workFolder, `pack-${index}`);
  const pack = await PackFile.make(task, { ...image, first, end, folder, buffers });
  try {
    const blob = await blobOfPieces(pack.pieces());
    const wasSent = await sendBlob(task, image.client, blob, () => pack.pieces());
    return { layer: { ...blob, mediaType: PACK_TYPE, annotations: {} }, lengths: pack.lengths, wasSent };
  } finally {
    await pack.close();
  }
}

/** False if the registry has it. `body` is called for each try. */
export async function sendBlob(
  task: Task,
  client: RegistryClient,
  { digest, size }: Blob,
  body: () => Body,
): Promise<boolean> {
  const state = await client.stateOf(task, digest, size);
  if (state === 'there') return false;
  await client.upload(task, digest, size, body);
  // docker-registry keeps the file that it has, whatever is in it.
  if (state === 'damaged' && (await client.stateOf(task, digest, size)) !== 'there')
    throw new RootfsError(
      'REGISTRY_FAILED',
      `${client.host} still has a damaged copy of blob ${digest} after it was sent again: ` +
        'delete that copy in the storage of the registry, and push again',
    );
  return true;
}
