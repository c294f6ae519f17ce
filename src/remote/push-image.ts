// Uploads an image, of a disk or of a VM's memory, as packs and an index. Packs that the registry has already are not
// sent.

import { createHash } from 'node:crypto';
import { type FileHandle, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { readFully } from '../image/read-bytes.js';
import { RootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';
import { blobOf, INDEX_TYPE, type Layer, PACK_TYPE } from './artifact.js';
import { type BasePacks, packKey } from './base-packs.js';
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
  /** Of each layer. */
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
  const index = list.withFrames(ends, frameBytes).bytes;
  const layer = { ...blobOf(index), mediaType: INDEX_TYPE, annotations };
  count(layer, await sendBlob(task, client, index));
  return { layers: [...layers, layer], ...sums };
}

/** In this repository, or taken over from that of the base. */
async function isThere(task: Task, { client, base }: PushImage, { digest }: Layer): Promise<boolean> {
  if (await client.hasBlob(task, digest)) return true;
  const from = base?.repository;
  return from !== undefined && from !== client.repository && client.mount(task, digest, from);
}

async function sendPack(
  task: Task,
  image: PushImage,
  span: Span,
): Promise<{ layer: Layer; lengths: readonly number[]; wasSent: boolean }> {
  const frames = await makeFrames(task, image, span);
  const pack = Buffer.concat(frames);
  const layer = { ...blobOf(pack), mediaType: PACK_TYPE, annotations: {} };
  const wasSent = await sendBlob(task, image.client, pack);
  return { layer, lengths: frames.map(({ length }) => length), wasSent };
}

/** False if the registry has it. */
export async function sendBlob(task: Task, client: RegistryClient, bytes: Buffer): Promise<boolean> {
  const { digest, size } = blobOf(bytes);
  if (await client.hasBlob(task, digest)) return false;
  await client.upload(task, digest, size, () => bytes);
  return true;
}

/** One frame for each chunk. zstd makes one for each file. */
async function makeFrames(
  task: Task,
  { file, list, level, workFolder }: PushImage,
  { index, first, end }: Span,
): Promise<Buffer[]> {
  const folder = join(workFolder, `pack-${index}`);
  await mkdir(folder);
  try {
    const files: string[] = [];
    for (let i = first; i < end; i++) {
      if (list.isZero(i)) continue;
      await writeFile(join(folder, `${i}`), await readChunk(file, list, i));
      files.push(`${i}`);
    }
    const compressed = files.length === 0 ? [] : await compressAll(task, files, level, folder);
    let next = 0;
    return Array.from({ length: end - first }, (_, k) =>
      list.isZero(first + k) ? zeroFrame(list.length(first + k)) : (compressed[next++] as Buffer),
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function compressAll(
  task: Task,
  files: readonly string[],
  level: number,
  folder: string,
): Promise<Buffer[]> {
  const parts: Buffer[] = [];
  const frames = new FrameLengths();
  await compress(task, files, level, folder, async (stdout: Readable) => {
    for await (const part of stdout) {
      frames.add(part);
      parts.push(part);
    }
  });
  const bytes = Buffer.concat(parts);
  if (!frames.isWhole || frames.lengths.length !== files.length)
    throw new RootfsError(
      'ZSTD_FAILED',
      `zstd made ${frames.lengths.length} frames of ${files.length} chunks`,
    );
  let start = 0;
  return frames.lengths.map((length) => {
    start += length;
    return bytes.subarray(start - length, start);
  });
}

async function readChunk(file: FileHandle, list: ChunkList, i: number): Promise<Buffer> {
  const content = Buffer.allocUnsafe(list.length(i));
  const count = await readFully(file, content, list.offset(i));
  const digest = createHash('sha256').update(content).digest();
  if (count === content.length && digest.equals(list.sha256(i))) return content;
  throw new RootfsError(
    'SOURCE_CHANGED',
    'the image has other bytes than when it was cut into chunks: push what nobody is writing to',
  );
}
