// Decompresses a file into a sparse one: gzip with Node's zlib, zstd and xz with their programs. Node's zlib may lack
// zstd, and where it has it, it silently stops after the first frame of a file. pzstd writes many frames.

import { createReadStream } from 'node:fs';
import type { Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import * as zlib from 'node:zlib';
import { programFailed } from '../programs/program-failed.js';
import { type Program, runInstalled } from '../programs/run-program.js';
import { RootfsError } from '../system/errors.js';
import { withController } from '../system/on-abort.js';
import type { Task } from '../system/task.js';
import { Turns } from '../system/turns.js';
import type { Compression } from './image-format.js';
import type { PublishLimits } from './publish-options.js';
import { SparseFile, type SparseFileOptions } from './sparse-file.js';
import { tooLarge } from './tree/limits.js';

const READ_BYTES = 1024 * 1024;
const ZEROS = Buffer.alloc(READ_BYTES);

// Each takes up to two threads for a few milliseconds at a time. A turn among copies and hashes would be lost for the
// minutes that a large image takes.
const turns = new Turns(2);

interface Decompressor extends Program {
  args(maxWindowBytes: number): readonly string[];
}

// Memory that the programs need in addition to the window.
const OWN_MEMORY_BYTES = 16 * 1024 * 1024;

const PROGRAMS: Readonly<Record<'zstd' | 'xz', Decompressor>> = {
  zstd: {
    name: 'zstd',
    package: 'zstd',
    notFound: 'PROGRAM_NOT_FOUND',
    args: (maxWindowBytes) => [
      '--decompress',
      '--stdout',
      '--quiet',
      // The largest window that zstd has.
      `--memory=${Math.min(maxWindowBytes, 2 ** 31)}`,
    ],
  },
  xz: {
    name: 'xz',
    package: 'xz-utils',
    notFound: 'PROGRAM_NOT_FOUND',
    args: (maxWindowBytes) => [
      '--decompress',
      '--stdout',
      '--format=xz',
      '--threads=1',
      `--memlimit-decompress=${maxWindowBytes + OWN_MEMORY_BYTES}`,
    ],
  },
};

interface Decompression {
  readonly format: Compression;
  readonly path: string;
  /** Used in messages. */
  readonly source: string;
  /** Must not exist yet. */
  readonly dest: string;
  readonly limits: Required<PublishLimits>;
  readonly sparse: SparseFileOptions;
}

/**
 * Rejects with `IMAGE_INVALID` if the data is damaged or truncated. `onRead` gets the number of bytes read from `path`.
 */
export function decompress(
  task: Task,
  { format, path, source, dest, limits, sparse }: Decompression,
  onRead: (bytesDone: number) => void,
): Promise<void> {
  return turns.run(task, async () => {
    const file = await SparseFile.create(dest, sparse);
    try {
      const bytes = () => counted(createReadStream(path, { highWaterMark: READ_BYTES }), onRead);
      const sink = async (chunks: AsyncIterable<Buffer>) => {
        for await (const chunk of chunks) {
          await file.write(chunk);
          if (file.length > limits.maxBytes)
            throw tooLarge(source, `holds more than ${limits.maxBytes} bytes`, 'limits.maxBytes');
        }
      };
      if (format === 'gzip') {
        const end = await inflate(source, bytes(), sink, task.signal);
        await requireZeros(task, path, source, end);
      } else await runProgram(task, PROGRAMS[format], { source, limits }, { bytes, sink });
      await file.finish();
    } catch (error) {
      task.checkAborted();
      throw error;
    } finally {
      await file.close();
    }
  });
}

type Sink = (chunks: AsyncIterable<Buffer>) => Promise<void>;

async function* counted(source: Readable, onRead: (bytesDone: number) => void): AsyncGenerator<Buffer> {
  let bytesDone = 0;
  for await (const chunk of source) {
    yield chunk;
    bytesDone += (chunk as Buffer).length;
    onRead(bytesDone);
  }
}

/** Resolves to where the padding behind the last member begins. */
async function inflate(
  path: string,
  source: AsyncIterable<Buffer>,
  sink: Sink,
  signal: AbortSignal | undefined,
): Promise<number> {
  const gunzip: Transform & zlib.Zlib = zlib.createGunzip({ chunkSize: READ_BYTES });
  let isDone = false;
  const receive = async (chunks: AsyncIterable<Buffer>) => {
    await sink(chunks);
    isDone = true;
  };
  try {
    await withController(signal, (own) => pipeline(source, gunzip, receive, { signal: own.signal }));
    return gunzip.bytesWritten;
  } catch (error) {
    // zlib stops reading at the padding after the last member, and the pipeline takes that for an abort.
    if (isDone && !signal?.aborted) return gunzip.bytesWritten;
    if (!isOfZlib(error)) throw error;
    // It takes what follows a member for another one.
    const advice = /header check/.test(error.message)
      ? '; if something was added behind its end, cut it off'
      : '';
    throw new RootfsError(
      'IMAGE_INVALID',
      `${path} cannot be decompressed; it is damaged or truncated: ${error.message}${advice}`,
      { path, cause: error },
    );
  }
}

/** zlib passes over all that follows a zero, and gzip over what is not padding with a warning alone. */
async function requireZeros(task: Task, path: string, source: string, start: number): Promise<void> {
  let at = start;
  for await (const chunk of createReadStream(path, { start, highWaterMark: READ_BYTES })) {
    task.checkAborted();
    const bytes = chunk as Buffer;
    const data = ZEROS.equals(bytes) ? -1 : bytes.findIndex((byte) => byte !== 0);
    if (data >= 0)
      throw new RootfsError(
        'IMAGE_INVALID',
        `${source} has data behind the zeros that follow its end, at byte ${at + data}: cut it off there, or remove ` +
          'the zeros if it belongs to the image',
        { path: source },
      );
    at += bytes.length;
  }
}

const ADVICE: readonly (readonly [words: RegExp, advice: string])[] = [
  // zstd says the same of zeros that fill the last block, which gzip and xz pass over.
  [/unsupported format/, '; cut off what was added behind its end, such as zeros'],
  // xz takes what was added for another stream.
  [
    /Unexpected end of input|Compressed data is corrupt/,
    '; get it again, or if something was added behind its end, cut it off',
  ],
];

async function runProgram(
  task: Task,
  program: Decompressor,
  { source, limits: { maxWindowBytes } }: Pick<Decompression, 'source' | 'limits'>,
  { bytes, sink }: { readonly bytes: () => AsyncIterable<Buffer>; readonly sink: Sink },
): Promise<void> {
  const exit = await runInstalled(program, program.args(maxWindowBytes), task.signal, {
    feed: (stdin) => pipeline(bytes(), stdin),
    drain: (stdout) => sink(stdout),
  });
  if (exit.status === 0) return;
  if (/[Mm]emory|Window size larger/.test(exit.stderr))
    throw tooLarge(
      source,
      `was compressed with a larger window than ${maxWindowBytes} bytes (${exit.stderr.trim()})`,
      'limits.maxWindowBytes',
    );
  const [, advice = ''] = ADVICE.find(([words]) => words.test(exit.stderr)) ?? [];
  throw programFailed('IMAGE_INVALID', program.name, source, exit, advice);
}

/** Whether it says that data in gzip is damaged. It has an errno of zlib's own, but no system call. */
export function isOfZlib(error: unknown): error is Error {
  return error instanceof Error && 'code' in error && `${error.code}`.startsWith('Z_');
}
