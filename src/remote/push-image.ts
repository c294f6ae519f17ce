// Uploads an image, of a disk or of a VM's memory, as packs and an index. Packs that the registry has already are not
// sent.

import { createHash } from 'node:crypto';
import { type FileHandle, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { readFully } from '../image/read-bytes.js';
import { RootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';
import { INDEX_TYPE, type Layer, PACK_TYPE } from './artifact.js';
import { type BasePacks, packKey } from './base-packs.js';
import type { Blob } from './blob-reader.js';
import { ByteQueue, blobOfPieces, piecesOf } from './byte-queue.js';
import type { ChunkList } from './chunk-list.js';
import { compress, FrameLengths, zeroFrame } from './frames.js';
import type { RegistryClient } from './registry-client.js';
import type { Pace } from './retry.js';

export interface PushedImage {
  /** The packs in order, then the index. */
  readonly layers: readonly Layer[];
  readonly uploadedBytes: number;
  readonly reusedBytes: number;
}

export interface PushImage {
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

/** The frames of the chunks of a pack, joined, and the bytes of each. */
interface Frames {
  readonly pieces: readonly Buffer[];
  readonly lengths: readonly number[];
}

/** The tag is not touched: that is left to the caller, when all blobs are there. */
export async function pushImage(task: Task, image: PushImage): Promise<PushedImage> {
  const { client, pace, list, ends, annotations } = image;
  const spans: Span[] = ends.map((end, index) => ({ index, first: ends[index - 1] ?? 0, end }));
  const layers: Layer[] = [];
  const frameBytes = new Uint32Array(list.count);
  const sums = { uploadedBytes: 0, reusedBytes: 0 };
  const count = (layer: Layer, wasSent: boolean) => {
    sums[wasSent ? 'uploadedBytes' : 'reusedBytes'] += layer.size;
  };
  await pace.forEach(task, spans, async (each, span) => {
    const known = image.base?.packs.get(packKey(list, span.first, span.end));
    const { layer, lengths, wasSent } =
      known !== undefined && (await isThere(each, image, known.layer))
        ? { layer: known.layer, lengths: known.frameBytes, wasSent: false }
        : await sendPack(each, image, span);
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
  span: Span,
): Promise<{ layer: Layer; lengths: readonly number[]; wasSent: boolean }> {
  const { pieces, lengths } = await makeFrames(task, image, span);
  const blob = await blobOfPieces(pieces);
  const wasSent = await sendBlob(task, image.client, blob, () => Readable.from(pieces));
  return { layer: { ...blob, mediaType: PACK_TYPE, annotations: {} }, lengths, wasSent };
}

/** False if the registry has it. `body` is called for each try. */
export async function sendBlob(
  task: Task,
  client: RegistryClient,
  { digest, size }: Blob,
  body: () => Buffer | Readable,
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

/** One frame for each chunk. zstd makes one for each file. */
async function makeFrames(
  task: Task,
  { file, list, level, workFolder }: PushImage,
  { index, first, end }: Span,
): Promise<Frames> {
  const folder = join(workFolder, `pack-${index}`);
  await mkdir(folder);
  try {
    const files: string[] = [];
    for (let i = first; i < end; i++) {
      if (list.isZero(i)) continue;
      await writeFile(join(folder, `${i}`), await readChunk(file, list, i));
      files.push(`${i}`);
    }
    const { queue, lengths } = await compressAll(task, files, level, folder);
    let next = 0;
    const frames = Array.from({ length: end - first }, (_, k) =>
      list.isZero(first + k) ? [zeroFrame(list.length(first + k))] : queue.take(lengths[next++] as number),
    );
    return { pieces: frames.flat(), lengths: frames.map(bytesOf) };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function compressAll(
  task: Task,
  files: readonly string[],
  level: number,
  folder: string,
): Promise<{ queue: ByteQueue; lengths: readonly number[] }> {
  const queue = new ByteQueue();
  const frames = new FrameLengths();
  const drain = async (stdout: Readable) => {
    for await (const part of stdout) {
      frames.add(part);
      queue.add(part);
    }
  };
  if (files.length > 0) await compress(task, files, level, folder, drain);
  if (frames.isWhole && frames.lengths.length === files.length) return { queue, lengths: frames.lengths };
  throw new RootfsError(
    'PROGRAM_FAILED',
    `zstd made ${frames.lengths.length} frames of ${files.length} chunks`,
  );
}

function bytesOf(pieces: readonly Buffer[]): number {
  return pieces.reduce((sum, { length }) => sum + length, 0);
}

async function readChunk(file: FileHandle, list: ChunkList, i: number): Promise<Buffer> {
  const content = Buffer.allocUnsafe(list.length(i));
  const count = await readFully(file, content, list.offset(i));
  const digest = createHash('sha256').update(content).digest();
  if (count === content.length && digest.equals(list.sha256(i))) return content;
  throw new RootfsError(
    'SOURCE_CHANGED',
    'the image changed since it was cut into chunks: stop whatever writes to it, and push again',
  );
}
