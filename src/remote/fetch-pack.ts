// Fetches the chunks of a pack that this host lacks. zstd decompresses them, and each is compared with its digest
// before it is written.

import { createHash } from 'node:crypto';
import { native } from '../addon/native.js';
import type { Task } from '../system/task.js';
import type { Layer } from './artifact.js';
import { type BlobPart, type BlobReader, wrongBlob } from './blob-reader.js';
import type { Buffers } from './buffers.js';
import type { ChunkList, Pack } from './chunk-list.js';
import type { ChunkSet } from './chunk-set.js';
import { decompress, type Output } from './decompressor.js';
import { isOneFrame } from './frames.js';
import type { Pace } from './pace.js';

export interface WantedOfPack {
  readonly list: ChunkList;
  readonly pack: Pack;
  /** A chunk leaves the set when it is written. */
  readonly wanted: ChunkSet;
}

export interface PackRequest extends WantedOfPack {
  readonly layer: Layer;
  readonly image: OpenImage;
  readonly buffers: Buffers;
  readonly onWritten: (bytes: number) => void;
}

interface OpenImage {
  readonly fd: number;
  readonly path: string;
}

/** The place of a chunk's frame in its pack. */
interface Frame {
  readonly chunk: number;
  readonly start: number;
  readonly end: number;
}

/** A range of the pack, for one request. */
interface Run {
  readonly start: number;
  readonly end: number;
}

// A request costs about as much as these bytes.
const GAP_LIMIT = 64 * 1024;
/** From this share on a pack is fetched whole, in one request. */
const WHOLE_SHARE = 0.75;
/** Decompressed and written in one go: more would keep other packs from zstd, and from a thread. */
const SLICE_BYTES = 16 * 1024 * 1024;
/** Of a slice, compressed. It holds the longest frame. */
export const FETCHED_BYTES = 1024 * 1024;

/** What came is not what the manifest or the index promise. */
class WrongBytes extends Error {}

/** Wrong bytes are fetched once more, from the origin. Rejects with `DIGEST_MISMATCH`, or the reader's codes. */
export async function fetchPack(
  task: Task,
  reader: BlobReader,
  pace: Pace,
  request: PackRequest,
): Promise<void> {
  const { layer, buffers } = request;
  const runs = runsOf(request);
  const origin = reader.ofOrigin();
  for (const each of [reader, origin]) {
    try {
      return await buffers.with((buffer) => pace.request(() => fetchRuns(task, each, request, runs, buffer)));
    } catch (error) {
      if (!(error instanceof WrongBytes)) throw error;
      if (each === origin) throw wrongBlob(layer, error);
    }
  }
}

/** Takes the bytes of a pack as they come, and writes the chunks that are missing, some frames at a time. */
class ChunkWriter {
  readonly #task: Task;
  readonly #request: PackRequest;
  readonly #buffer: Buffer;
  readonly #frames: readonly Frame[];
  #next = 0;
  /** In the buffer: whole frames, and the start of the next one. */
  #slice: Frame[] = [];
  #sliceBytes = 0;
  #startBytes = 0;
  #chunkBytes = 0;

  constructor(task: Task, request: PackRequest, buffer: Buffer) {
    this.#task = task;
    this.#request = request;
    this.#buffer = buffer;
    this.#frames = missingFrames(request);
  }

  /** Where the first of them begins that has not come. */
  get nextStart(): number {
    return this.#frames[this.#next]?.start ?? Number.POSITIVE_INFINITY;
  }

  async add({ start, bytes }: BlobPart): Promise<void> {
    const end = start + bytes.length;
    for (; this.nextStart < end; this.#next++) {
      const frame = this.#frames[this.#next] as Frame;
      if (this.#startBytes === 0 && !this.#hasRoomFor(frame)) await this.write();
      const to = this.#sliceBytes + this.#startBytes;
      const from = Math.max(0, frame.start - start);
      this.#startBytes += bytes.copy(this.#buffer, to, from, Math.min(bytes.length, frame.end - start));
      if (frame.end > end) return;
      this.#sliceBytes += this.#startBytes;
      this.#startBytes = 0;
      this.#slice.push(frame);
      this.#chunkBytes += this.#request.list.length(frame.chunk);
    }
  }

  #hasRoomFor({ start, end }: Frame): boolean {
    return this.#sliceBytes + end - start <= this.#buffer.length && this.#chunkBytes < SLICE_BYTES;
  }

  /** Only now are frames given to zstd: a program that waits for the network would keep others from their turn. */
  async write(): Promise<void> {
    const frames = this.#slice;
    if (frames.length === 0) return;
    const bytes = this.#buffer.subarray(0, this.#sliceBytes);
    let at = 0;
    for (const { chunk, start, end } of frames) {
      if (!isOneFrame(bytes.subarray(at, at + end - start)))
        throw new WrongBytes(`chunk ${chunk} is not a zstd frame`);
      at += end - start;
    }
    await writeChunks(this.#task, this.#request, frames, bytes);
    this.#slice = [];
    this.#sliceBytes = 0;
    this.#chunkBytes = 0;
  }
}

async function fetchRuns(
  task: Task,
  reader: BlobReader,
  request: PackRequest,
  runs: readonly Run[],
  buffer: Buffer,
): Promise<void> {
  const { layer } = request;
  const writer = new ChunkWriter(task, request, buffer);
  for (const { start, end } of runs) {
    const isWhole = start === 0 && end === layer.size;
    // A registry may have sent the whole pack in answer to an earlier range.
    if (!isWhole && writer.nextStart >= end) continue;
    const hash = createHash('sha256');
    for await (const part of reader.read(task, layer, start, end)) {
      if (isWhole) hash.update(part.bytes);
      await writer.add(part);
    }
    if (isWhole && `sha256:${hash.digest('hex')}` !== layer.digest)
      throw new WrongBytes('it has another digest');
  }
  await writer.write();
}

async function writeChunks(
  task: Task,
  { list, wanted, image, onWritten }: PackRequest,
  frames: readonly Frame[],
  bytes: Buffer,
): Promise<void> {
  const isWhole = await decompress(task, bytes, image.path, async (output) => {
    const received = await receive(output, image, list, frames);
    for (const { chunk } of frames.slice(0, received.written)) {
      wanted.delete(chunk);
      onWritten(list.length(chunk));
    }
    return received.isWhole;
  });
  if (isWhole) return;
  const wrong = frames.find(({ chunk }) => wanted.has(chunk));
  throw new WrongBytes(
    wrong === undefined
      ? 'it decompresses to more than its chunks'
      : `chunk ${wrong.chunk} is damaged, or has another digest`,
  );
}

/** The frames of chunks that are still to be written. */
function missingFrames({ list, pack, wanted }: WantedOfPack): Frame[] {
  const frames: Frame[] = [];
  let start = 0;
  for (let chunk = pack.first; chunk < pack.end; chunk++) {
    const end = start + list.frameBytes(chunk);
    if (wanted.has(chunk)) frames.push({ chunk, start, end });
    start = end;
  }
  return frames;
}

/** Bytes of the requests for what is wanted. */
export function bytesToFetch(wanted: WantedOfPack): number {
  return runsOf(wanted).reduce((sum, { start, end }) => sum + end - start, 0);
}

function runsOf(wanted: WantedOfPack): Run[] {
  const frames = missingFrames(wanted);
  const packBytes = wanted.pack.sizeBytes;
  const needed = frames.reduce((sum, { start, end }) => sum + end - start, 0);
  if (needed >= packBytes * WHOLE_SHARE) return [{ start: 0, end: packBytes }];
  const runs: { start: number; end: number }[] = [];
  for (const { start, end } of frames) {
    const last = runs.at(-1);
    if (last !== undefined && start - last.end <= GAP_LIMIT) last.end = end;
    else runs.push({ start, end });
  }
  return runs;
}

/** On another thread, which never holds more than one chunk, whatever the frames decompress to. */
function receive(
  { pipe, skipBytes, endMark }: Output,
  { fd, path }: OpenImage,
  list: ChunkList,
  frames: readonly Frame[],
): Promise<{ written: number; isWhole: boolean }> {
  const ranges = Float64Array.from(frames.flatMap(({ chunk }) => [list.offset(chunk), list.length(chunk)]));
  const sha256s = frames.map(({ chunk }) => list.sha256(chunk).toString('hex')).join('');
  return native().receiveChunks(pipe, fd, path, { skipBytes, ranges, sha256s, endMark });
}
