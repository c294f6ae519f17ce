// Decompresses frames of chunks by the zstd program, so that a fault in a decoder stays in its own process. Starting it
// takes as long as decompressing a pack or two, so all pulls of this process share a few, which end when no pull is
// left.

import { randomBytes } from 'node:crypto';
import type { Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { type NativePipe, native } from '../addon/native.js';
import { isFaultOfThisMachine, programFailed } from '../programs/program-failed.js';
import { type Exit, runInstalled } from '../programs/run-program.js';
import { onAbort } from '../system/on-abort.js';
import type { Task } from '../system/task.js';
import { Turns } from '../system/turns.js';
import { CHUNK_LIMIT } from './chunk-list.js';
import { rawFrame, skippedFrame, zeroFrame } from './frames.js';
import { ZSTD } from './zstd.js';

/** What zstd writes: bytes to skip, what the frames hold, a mark, and further bytes to skip. */
export interface Output {
  readonly pipe: NativePipe;
  readonly skipBytes: number;
  readonly endMark: string;
}

// A frame of ours needs half a MiB.
const MEMORY = '--memory=8MiB';

// This machine lacks memory. zstd's other words about memory are of a frame that asks for more than it may have.
const NO_MEMORY = /not enough memory/i;

// Comes behind the mark and pushes it out: zstd reads its input by 128 KiB and a few bytes, and keeps up to 4 KiB of
// its output until there is more. It is longer than any chunk: if a chunk is too short, its reader gets these bytes,
// and does not wait for ever.
const PUSHED_BYTES = CHUNK_LIMIT + 64 * 1024;
const PUSH = Buffer.concat([zeroFrame(PUSHED_BYTES), skippedFrame(129 * 1024)]);

/** Each holds a thread of Node's pool while it works. Two are quicker than any network. */
const turns = new Turns(2);
const idle: Zstd[] = [];
let pulls = 0;

/** Programs stay until the last of these has ended. */
export async function withZstd<T>(work: () => Promise<T>): Promise<T> {
  pulls++;
  try {
    return await work();
  } finally {
    pulls--;
    if (pulls === 0) await Promise.all(idle.splice(0).map((zstd) => zstd.end()));
  }
}

/**
 * Within {@link withZstd}. Each frame must be whole, by its heads. `take` returns whether the mark came where it
 * should, and so does this. Rejects with what `take` rejects with, or with `PROGRAM_FAILED` if zstd came to its end
 * before that of the frames: then they are not at fault. `path` is used in messages.
 */
export async function decompress(
  task: Task,
  frames: Buffer,
  path: string,
  take: (output: Output) => Promise<boolean>,
): Promise<boolean> {
  return turns.run(task, async () => {
    const zstd = (await idleZstd()) ?? (await Zstd.start());
    const isWhole = await zstd.decompress(task, frames, path, take);
    if (isWhole) idle.push(zstd);
    return isWhole;
  });
}

/** One that was killed while it was idle, as by the OOM killer, is passed over. */
async function idleZstd(): Promise<Zstd | undefined> {
  for (let zstd = idle.pop(); zstd !== undefined; zstd = idle.pop()) {
    if (!zstd.hasExited) return zstd;
    await zstd.end().catch(() => {}); // it was idle, so its failure concerns no pull
  }
  return undefined;
}

class Zstd {
  readonly #pipe: NativePipe;
  readonly #stdin: Writable;
  readonly #exit: Promise<Exit>;
  readonly #killing: AbortController;
  #skipBytes = 0;
  #hasExited = false;

  /** Rejects with `PROGRAM_NOT_FOUND`. */
  static start(): Promise<Zstd> {
    const { pipe, writeFd } = native().newPipe();
    const killing = new AbortController();
    return new Promise((resolve, reject) => {
      const exit = runInstalled(ZSTD, ['-d', '-c', '-q', MEMORY], killing.signal, {
        outOfTurn: true,
        feed: (stdin) => {
          resolve(new Zstd(pipe, stdin, exit, killing));
          return finished(stdin);
        },
        output: { fd: writeFd, read: async () => native().closeWriteEnd(pipe) },
      });
      exit.catch((error) => {
        native().dispose(pipe);
        reject(error);
      });
    });
  }

  private constructor(pipe: NativePipe, stdin: Writable, exit: Promise<Exit>, killing: AbortController) {
    this.#pipe = pipe;
    this.#stdin = stdin;
    this.#exit = exit;
    this.#killing = killing;
    const onExit = () => {
      this.#hasExited = true;
    };
    exit.then(onExit, onExit);
  }

  get hasExited(): boolean {
    return this.#hasExited;
  }

  /** Unless it returns true, the program has ended. */
  async decompress(
    task: Task,
    frames: Buffer,
    path: string,
    take: (output: Output) => Promise<boolean>,
  ): Promise<boolean> {
    const endMark = randomBytes(8).toString('hex');
    const kill = () => this.#killing.abort();
    const stop = onAbort(task.signal, kill);
    try {
      // It may have been aborted while the program was started, which nobody else would end.
      task.checkAborted();
      for (const part of [frames, rawFrame(Buffer.from(endMark)), PUSH]) this.#stdin.write(part);
      const isWhole = await take({ pipe: this.#pipe, skipBytes: this.#skipBytes, endMark });
      this.#skipBytes = PUSHED_BYTES;
      if (isWhole) return true;
      const exit = await this.end();
      const isOurFault = exit.signal !== 'SIGPIPE' && isFaultOfThisMachine(exit);
      if (isOurFault || NO_MEMORY.test(exit.stderr))
        throw programFailed('PROGRAM_FAILED', ZSTD.name, path, exit);
      return false;
    } catch (error) {
      kill();
      await this.end().catch(() => {}); // the first error tells more
      task.checkAborted();
      throw error;
    } finally {
      stop();
    }
  }

  /** It ends when it reads the end of its input, when it writes to a pipe that nobody reads, or has ended before. */
  async end(): Promise<Exit> {
    native().dispose(this.#pipe);
    this.#stdin.end();
    return this.#exit;
  }
}
