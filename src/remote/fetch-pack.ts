// Fetches the chunks of some packs that this host lacks. zstd decompresses them, and each is compared with its digest
// before it is written. Packs share a zstd: to start one takes as long as to decompress a pack or two.

import { createHash } from 'node:crypto';
import { type NativePipe, native } from '../addon/native.js';
import type { Task } from '../system/task.js';
import type { Layer } from './artifact.js';
import { digestOf } from './artifact.js';
import { type BlobReader, type ReadOptions, wrongBlob } from './blob-reader.js';
import type { ChunkList, Pack } from './chunk-list.js';
import { decompress } from './frames.js';
import type { Pace } from './retry.js';

export interface PackRequest {
  readonly list: ChunkList;
  readonly packs: readonly LocatedPack[];
  /** Ascending. A chunk leaves the set when it is written. */
  readonly wanted: Set<number>;
  readonly image: OpenImage;
  readonly onWritten: (bytes: number) => void;
}

export interface LocatedPack {
  readonly pack: Pack;
  readonly layer: Layer;
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
  readonly layer: Layer;
}

interface Run {
  readonly start: number;
  readonly end: number;
}

// A request costs about as much as these bytes.
const GAP_LIMIT = 64 * 1024;
/** From this share on a pack is fetched whole, in one request. */
const WHOLE_SHARE = 0.75;

/** What came is not what the manifest or the index promise. */
class WrongBytes extends Error {
  readonly layer: Layer;

  constructor(layer: Layer, message: string) {
    super(message);
    this.layer = layer;
  }
}

/** Wrong bytes are fetched once more, from the origin. Rejects with `DIGEST_MISMATCH`, or the reader's codes. */
export async function fetchPacks(
  task: Task,
  reader: BlobReader,
  pace: Pace,
  request: PackRequest,
  options: ReadOptions,
): Promise<void> {
  for (const fromOrigin of [false, true]) {
    try {
      return await fetchOnce(task, reader, pace, request, { ...options, fromOrigin });
    } catch (error) {
      if (!(error instanceof WrongBytes)) throw error;
      if (fromOrigin) throw wrongBlob(error.layer, error);
    }
  }
}

async function fetchOnce(
  task: Task,
  reader: BlobReader,
  pace: Pace,
  { list, packs, wanted, image, onWritten }: PackRequest,
  options: ReadOptions,
): Promise<void> {
  // Fetched before zstd starts: a program that waits for the network would keep others from their turn.
  const missing = packs.map((each) => framesOf(list, each).filter(({ chunk }) => wanted.has(chunk)));
  const fetched: Buffer[][] = packs.map(() => []);
  await pace.forEach(task, packs.entries(), (each, [i, { layer }]) =>
    pace.request(async () => {
      for await (const part of wantedBytes(each, reader, layer, missing[i] as Frame[], options))
        fetched[i]?.push(part);
    }),
  );
  const frames = missing.flat();
  const bytes = fetched.flat();
  const last = frames.at(-1);
  if (last === undefined) return;
  const isDone = await decompress(task, bytes, image.path, async (pipe) => {
    const { written, hasMore } = await receive(pipe, image, list, frames);
    for (const { chunk } of frames.slice(0, written)) {
      wanted.delete(chunk);
      onWritten(list.length(chunk));
    }
    const wrong = frames[written];
    if (wrong !== undefined)
      throw new WrongBytes(wrong.layer, `chunk ${wrong.chunk} has another digest, or is cut off`);
    if (hasMore) throw new WrongBytes(last.layer, 'it decompresses to more than its chunks');
  });
  if (!isDone) throw new WrongBytes(last.layer, 'it is damaged');
}

function framesOf(list: ChunkList, { pack, layer }: LocatedPack): Frame[] {
  const frames: Frame[] = [];
  let start = 0;
  for (let chunk = pack.first; chunk < pack.end; chunk++) {
    const end = start + list.frameBytes(chunk);
    frames.push({ chunk, start, end, layer });
    start = end;
  }
  return frames;
}

/** The bytes of these frames, without what lies between them. */
async function* wantedBytes(
  task: Task,
  reader: BlobReader,
  layer: Layer,
  frames: readonly Frame[],
  options: ReadOptions,
): AsyncGenerator<Buffer, void, undefined> {
  let next = 0;
  for (const run of runsOf(frames, layer.size)) {
    // A registry may have sent the whole pack in answer to an earlier range.
    if (next === frames.length || (frames[next] as Frame).start >= run.end) continue;
    const isWhole = run.start === 0 && run.end === layer.size;
    const hash = createHash('sha256');
    for await (const { start, bytes } of reader.read(task, layer, run.start, run.end, options)) {
      if (isWhole) hash.update(bytes);
      const end = start + bytes.length;
      for (let frame = frames[next]; frame !== undefined && frame.start < end; frame = frames[next]) {
        yield bytes.subarray(Math.max(0, frame.start - start), frame.end - start);
        if (frame.end > end) break;
        next++;
      }
    }
    if (isWhole && `sha256:${hash.digest('hex')}` !== layer.digest)
      throw new WrongBytes(layer, 'it has another digest');
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
  pipe: NativePipe,
  { fd, path }: OpenImage,
  list: ChunkList,
  frames: readonly Frame[],
): Promise<{ written: number; hasMore: boolean }> {
  const places = Float64Array.from(frames.flatMap(({ chunk }) => [list.offset(chunk), list.length(chunk)]));
  const sha256s = frames.map(({ chunk }) => list.sha256(chunk).toString('hex')).join('');
  return native().receiveChunks(pipe, fd, path, places, sha256s);
}

/** A whole blob that fits into memory, compared with its digest. */
export async function fetchBlob(
  task: Task,
  reader: BlobReader,
  layer: Layer,
  options: ReadOptions,
): Promise<Buffer> {
  for (const fromOrigin of [false, true]) {
    const parts: Buffer[] = [];
    for await (const { bytes } of reader.read(task, layer, 0, layer.size, { ...options, fromOrigin }))
      parts.push(bytes);
    const content = Buffer.concat(parts);
    if (digestOf(content) === layer.digest) return content;
  }
  throw wrongBlob(layer, new Error('it has another digest'));
}
