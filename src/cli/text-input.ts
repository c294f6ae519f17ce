// Reads text from people and other programs: settings and lists of ids. Refuses what it can't decode for certain.
import { constants, createReadStream, fstatSync, openSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { Socket } from 'node:net';
import { addAbortSignal, type Readable } from 'node:stream';
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

/** Far more than any list of ids. Some devices have no end. */
const BYTES_LIMIT = 64 * 1024 * 1024;

async function readStream(stream: Readable, path: string, signal: AbortSignal | undefined): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of signal === undefined ? stream : addAbortSignal(signal, stream)) {
    chunks.push(chunk as Buffer);
    bytes += (chunk as Buffer).length;
    if (bytes > BYTES_LIMIT)
      throw new RootfsError(
        'INVALID_ARGUMENT',
        `${nameOfInput(path)} has more than ${BYTES_LIMIT} bytes: is it a text file?`,
      );
  }
  return Buffer.concat(chunks);
}

/** Node takes what is neither a file nor a pipe nor a terminal for an empty input. */
function requireReadable(): void {
  const stats = fstatSync(0);
  const what = stats.isDirectory() ? 'folder' : stats.isBlockDevice() ? 'disk' : undefined;
  if (what !== undefined)
    throw new RootfsError('INVALID_ARGUMENT', `standard input is a ${what}: give it text`);
}

/** Does not wait for a writer: it may come later. */
function openFifo(path: string): Socket {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  return new Socket({ fd, readable: true, writable: false });
}

const STANDARD_INPUT = new Set(['-', '/dev/stdin', '/dev/fd/0', '/proc/self/fd/0']);

async function read(path: string, signal: AbortSignal | undefined): Promise<Buffer> {
  try {
    if (STANDARD_INPUT.has(path)) {
      requireReadable();
      return await readStream(process.stdin, path, signal);
    }
    // A thread that waits for a writer could not be interrupted.
    const stream = (await stat(path)).isFIFO() ? openFifo(path) : createReadStream(path);
    return await readStream(stream, path, signal);
  } catch (error) {
    if (signal?.aborted)
      throw new RootfsError('ABORT_ERR', `reading ${nameOfInput(path)} was aborted`, {
        cause: signal.reason,
      });
    if (error instanceof RootfsError) throw error;
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
