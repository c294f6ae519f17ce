// Fetches the chunks of a pack that this host lacks. zstd decompresses them, and each is compared with its digest
// before it is written.

import { createHash } from 'node:crypto';
import { native } from '../addon/native.js';
import type { Task } from '../system/task.js';
import { invalid, type Layer } from './artifact.js';
import { type BlobReader, type ReadOptions, wrongBlob } from './blob-reader.js';
import type { ChunkList, Pack } from './chunk-list.js';
import type { ChunkSet } from './chunk-set.js';
import { decompress, type Output } from './decompressor.js';
import { isOneFrame } from './frames.js';
import type { Pace } from './retry.js';

export interface PackRequest {
  readonly list: ChunkList;
  readonly pack: Pack;
  readonly layer: Layer;
  /** A chunk leaves the set when it is written. */
  readonly wanted: ChunkSet;
  readonly image: OpenImage;
  readonly buffers: Buffers;
  readonly onWritten: (bytes: number) => void;
}

/** Buffers that are used again: the collector comes too late to buffers of megabytes. */
export class Buffers {
  readonly #bytes: number;
  readonly #idle: Buffer[] = [];

  /** Each as long as the longest need. */
  constructor(bytes: number) {
    this.#bytes = bytes;
  }

  async with<T>(use: (buffer: Buffer) => Promise<T>): Promise<T> {
    const buffer = this.#idle.pop() ?? Buffer.allocUnsafeSlow(this.#bytes);
    const result = await use(buffer);
    // After a failure somebody may still write to it.
    this.#idle.push(buffer);
    return result;
  }
}

export interface OpenImage {
  readonly fd: number;
  readonly path: string;
}

/** The place of a chunk's frame in its pack. */
interface Frame {
  readonly chunk: number;
  readonly start: number;
  readonly end: number;
}

interface Run {
  readonly start: number;
  readonly end: number;
}

// A request costs about as much as these bytes.
const GAP_LIMIT = 64 * 1024;
/** From this share on a pack is fetched whole, in one request. */
const WHOLE_SHARE = 0.75;
/** Decompressed and written in one go: a pack of a large image would keep others from zstd, and from a thread. */
const SLICE_BYTES = 16 * 1024 * 1024;

/** What came is not what the manifest or the index promise. */
class WrongBytes extends Error {}

/** Wrong bytes are fetched once more, from the origin. Rejects with `DIGEST_MISMATCH`, or the reader's codes. */
export async function fetchPack(
  task: Task,
  reader: BlobReader,
  pace: Pace,
  request: PackRequest,
  options: ReadOptions,
): Promise<void> {
  for (const fromOrigin of [false, true]) {
    try {
      return await request.buffers.with((buffer) =>
        fetchOnce(task, reader, pace, request, buffer, { ...options, fromOrigin }),
      );
    } catch (error) {
      if (!(error instanceof WrongBytes)) throw error;
      if (fromOrigin) throw wrongBlob(request.layer, error);
    }
  }
}

async function fetchOnce(
  task: Task,
  reader: BlobReader,
  pace: Pace,
  request: PackRequest,
  fetched: Buffer,
  options: ReadOptions,
): Promise<void> {
  const missing = framesOf(request).filter(({ chunk }) => request.wanted.has(chunk));
  // Before zstd gets them: a program that waits for the network would keep others from their turn.
  await pace.request(() => fetchFrames(task, reader, request.layer, missing, fetched, options));
  let at = 0;
  for (const frames of slicesOf(missing, request.list)) {
    const start = at;
    for (const { chunk, start: from, end } of frames) {
      const length = end - from;
      if (!isOneFrame(fetched.subarray(at, at + length)))
        throw new WrongBytes(`chunk ${chunk} is not a zstd frame`);
      at += length;
    }
    await writeChunks(task, request, frames, fetched.subarray(start, at));
  }
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

function framesOf({ list, pack }: PackRequest): Frame[] {
  const frames: Frame[] = [];
  let start = 0;
  for (let chunk = pack.first; chunk < pack.end; chunk++) {
    const end = start + list.frameBytes(chunk);
    frames.push({ chunk, start, end });
    start = end;
  }
  return frames;
}

function* slicesOf(frames: readonly Frame[], list: ChunkList): Generator<Frame[], void, undefined> {
  let slice: Frame[] = [];
  let bytes = 0;
  for (const frame of frames) {
    slice.push(frame);
    bytes += list.length(frame.chunk);
    if (bytes < SLICE_BYTES) continue;
    yield slice;
    slice = [];
    bytes = 0;
  }
  if (slice.length > 0) yield slice;
}

/** The bytes of these frames, one behind the other, without what lies between them. */
async function fetchFrames(
  task: Task,
  reader: BlobReader,
  layer: Layer,
  frames: readonly Frame[],
  fetched: Buffer,
  options: ReadOptions,
): Promise<void> {
  let next = 0;
  let at = 0;
  for (const run of runsOf(frames, layer.size)) {
    // A registry may have sent the whole pack in answer to an earlier range.
    if (next === frames.length || (frames[next] as Frame).start >= run.end) continue;
    const isWhole = run.start === 0 && run.end === layer.size;
    const hash = createHash('sha256');
    for await (const { start, bytes } of reader.read(task, layer, run.start, run.end, options)) {
      if (isWhole) hash.update(bytes);
      const end = start + bytes.length;
      for (let frame = frames[next]; frame !== undefined && frame.start < end; frame = frames[next]) {
        at += bytes.copy(
          fetched,
          at,
          Math.max(0, frame.start - start),
          Math.min(bytes.length, frame.end - start),
        );
        if (frame.end > end) break;
        next++;
      }
    }
    if (isWhole && `sha256:${hash.digest('hex')}` !== layer.digest)
      throw new WrongBytes('it has another digest');
  }
}

function runsOf(frames: readonly Frame[], packBytes: number): Run[] {
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

/** A whole blob that fits into memory, compared with its digest. */
export async function fetchBlob(
  task: Task,
  reader: BlobReader,
  layer: Layer,
  options: ReadOptions,
): Promise<Buffer> {
  for (const fromOrigin of [false, true]) {
    // Piece by piece: to join or to hash an index of many MiB at once would hold the event loop.
    const content = Buffer.alloc(layer.size);
    const hash = createHash('sha256');
    let received = 0;
    let failure: unknown;
    try {
      for await (const part of reader.read(task, layer, 0, layer.size, { ...options, fromOrigin })) {
        part.bytes.copy(content, part.start);
        hash.update(part.bytes);
        received += part.bytes.length;
      }
    } catch (error) {
      failure = error;
    }
    const isRight = `sha256:${hash.digest('hex')}` === layer.digest;
    if (isRight && received === layer.size) return content;
    if (isRight) throw invalid(`its manifest has a size of ${layer.size} for a blob of ${received} bytes`);
    if (failure !== undefined) throw failure;
  }
  throw wrongBlob(layer, new Error('it has another digest'));
}
