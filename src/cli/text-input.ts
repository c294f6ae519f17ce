// Reads text from people and other programs: settings and lists of ids. Refuses what it can't decode for certain.
import { constants, openSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { Socket } from 'node:net';
import { addAbortSignal, type Readable } from 'node:stream';
import { buffer as bytesOf } from 'node:stream/consumers';
import { getSystemErrorMap } from 'node:util';
import { RootfsError } from '../index.js';

/** Where text comes from, for messages. */
export function nameOfInput(path: string): string {
  return path === '-' ? 'standard input' : path;
}

/**
 * The text of a file; `-` is standard input. UTF-8, or UTF-16 with a byte-order mark. Throws `INVALID_ARGUMENT` for
 * anything else, and the system's code if the file can't be read.
 */
export async function readText(path: string, signal?: AbortSignal): Promise<string> {
  return decode(nameOfInput(path), await read(path, signal));
}

function readStream(stream: Readable, signal: AbortSignal | undefined): Promise<Buffer> {
  return bytesOf(signal === undefined ? stream : addAbortSignal(signal, stream));
}

/** Does not wait for a writer: it may come later. */
function openFifo(path: string): Socket {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  return new Socket({ fd, readable: true, writable: false });
}

const STANDARD_INPUT = new Set(['-', '/dev/stdin', '/dev/fd/0', '/proc/self/fd/0']);

async function read(path: string, signal: AbortSignal | undefined): Promise<Buffer> {
  try {
    if (STANDARD_INPUT.has(path)) return await readStream(process.stdin, signal);
    // A thread that waits for a writer could not be interrupted.
    if ((await stat(path)).isFIFO()) return await readStream(openFifo(path), signal);
    return await readFile(path, { ...(signal === undefined ? {} : { signal }) });
  } catch (error) {
    if (signal?.aborted)
      throw new RootfsError('ABORT_ERR', `reading ${nameOfInput(path)} was aborted`, {
        cause: signal.reason,
      });
    const { code, errno, syscall, message } = error as NodeJS.ErrnoException;
    // Without the code and the system call, which Node's message has as well.
    const why = getSystemErrorMap().get(errno ?? 0)?.[1] ?? message;
    throw new RootfsError(code ?? 'EIO', `reading ${path}: ${why}`, {
      errno,
      syscall,
      path,
      cause: error,
    });
  }
}

function decode(name: string, bytes: Buffer): string {
  try {
    // The decoder removes the byte-order mark.
    const text = new TextDecoder(encodingOf(bytes), { fatal: true }).decode(bytes);
    if (!text.includes('\0')) return text;
  } catch (error) {
    throw notText(name, error);
  }
  throw notText(name);
}

function encodingOf(bytes: Buffer): 'utf-8' | 'utf-16le' | 'utf-16be' {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return 'utf-16le';
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return 'utf-16be';
  return 'utf-8';
}

function notText(name: string, cause?: unknown): RootfsError {
  return new RootfsError('INVALID_ARGUMENT', `${name} is not plain text: save it as UTF-8`, { cause });
}
