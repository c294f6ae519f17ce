// The bytes of a pack that is sent: frames of zeros, and those that zstd made, in a file. Of many packs at once, or of
// a large one, they would be too much for memory.

import { createHash } from 'node:crypto';
import { type FileHandle, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { readFully } from '../image/read-bytes.js';
import { RootfsError } from '../system/errors.js';
import { openOfMode, writeOfMode } from '../system/make-files.js';
import { makeFolders } from '../system/make-folders.js';
import type { Task } from '../system/task.js';
import type { Buffers } from './buffers.js';
import type { ChunkList } from './chunk-list.js';
import { FrameLengths, zeroFrame } from './frames.js';
import { compress } from './zstd.js';

interface PackSource {
  readonly file: FileHandle;
  readonly list: ChunkList;
  /** Chunks of the pack. */
  readonly first: number;
  readonly end: number;
  readonly level: number;
  /** For temporary files. It must not exist. */
  readonly folder: string;
  /** Each holds the longest chunk. */
  readonly buffers: Buffers;
}

export class PackFile {
  /** The length of each chunk's frame. */
  readonly lengths: readonly number[];
  /** Undefined for frames that are in the file. */
  readonly #zeros: readonly (Buffer | undefined)[];
  readonly #file: FileHandle;
  readonly #buffers: Buffers;

  /** To be closed. Rejects with `SOURCE_CHANGED`, or as zstd fails. */
  static async make(task: Task, source: PackSource): Promise<PackFile> {
    // Beside the folder: FUSE and NFS keep a hidden name of a removed file while it is open, and a folder with one
    // cannot be removed.
    const frames = `${source.folder}.frames`;
    const file = await openOfMode(frames, 'wx+');
    try {
      await rm(frames);
      return new PackFile(source, file, await framesInto(task, source, file));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  private constructor({ list, first, end, buffers }: PackSource, file: FileHandle, made: readonly number[]) {
    let next = 0;
    this.#zeros = Array.from({ length: end - first }, (_, k) =>
      list.isZero(first + k) ? zeroFrame(list.length(first + k)) : undefined,
    );
    this.lengths = this.#zeros.map((zeros) => zeros?.length ?? (made[next++] as number));
    this.#file = file;
    this.#buffers = buffers;
  }

  /** Each piece is overwritten when the next is asked for. */
  async *pieces(): AsyncGenerator<Buffer, void, undefined> {
    const buffer = this.#buffers.take();
    let start = 0;
    let end = 0;
    for (const [i, zeros] of this.#zeros.entries()) {
      if (zeros === undefined) {
        end += this.lengths[i] as number;
        continue;
      }
      yield* readRange(this.#file, buffer, start, end);
      start = end;
      yield zeros;
    }
    yield* readRange(this.#file, buffer, start, end);
    this.#buffers.giveBack(buffer);
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

/** One frame for each chunk of data. Returns their lengths. */
async function framesInto(task: Task, source: PackSource, frames: FileHandle): Promise<readonly number[]> {
  const { folder, buffers } = source;
  await makeFolders(folder, 0o700);
  try {
    return await buffers.with((buffer) => compressChunks(task, source, frames, buffer));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** zstd makes a frame of each file. */
async function compressChunks(
  task: Task,
  { file, list, first, end, level, folder }: PackSource,
  frames: FileHandle,
  buffer: Buffer,
): Promise<readonly number[]> {
  const names: string[] = [];
  for (let i = first; i < end; i++) {
    if (list.isZero(i)) continue;
    await writeOfMode(join(folder, `${i}`), await readChunk(file, list, i, buffer));
    names.push(`${i}`);
  }
  if (names.length > 0) await compress(task, names, level, folder, frames.fd);
  const { size } = await frames.stat();
  const found = new FrameLengths();
  for await (const piece of readRange(frames, buffer, 0, size)) found.add(piece);
  if (found.isWhole && found.lengths.length === names.length) return found.lengths;
  throw new RootfsError(
    'PROGRAM_FAILED',
    `zstd made ${found.lengths.length} frames of ${names.length} chunks`,
  );
}

async function* readRange(
  file: FileHandle,
  buffer: Buffer,
  start: number,
  end: number,
): AsyncGenerator<Buffer, void, undefined> {
  for (let at = start; at < end; at += buffer.length) {
    const piece = buffer.subarray(0, Math.min(buffer.length, end - at));
    if ((await readFully(file, piece, at)) < piece.length)
      throw new Error('the frames of a pack are cut off');
    yield piece;
  }
}

async function readChunk(file: FileHandle, list: ChunkList, i: number, buffer: Buffer): Promise<Buffer> {
  const content = buffer.subarray(0, list.length(i));
  const count = await readFully(file, content, list.offset(i));
  const digest = createHash('sha256').update(content).digest();
  if (count === content.length && digest.equals(list.sha256(i))) return content;
  throw new RootfsError(
    'SOURCE_CHANGED',
    'the image changed since it was cut into chunks: stop whatever writes to it, and push again',
  );
}
