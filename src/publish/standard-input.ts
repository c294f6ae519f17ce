// Standard input as a source. It is read by a stream of its own: process.stdin is the program's, which goes on with it
// after an abort, and in a worker another one.
import { createReadStream, fstatSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { isatty } from 'node:tty';
import { invalidArgument, RootfsError } from '../system/errors.js';
import { INPUT_NAME } from './source-name.js';

let wasRead = false;

/** Rejects what cannot be read to its end. libuv closes no descriptor below 3: destroying the stream leaves it open. */
export function standardInput(): Readable {
  if (isatty(0)) throw refused('is a terminal: pipe an image into it, or name a file');
  const stats = fstatSync(0);
  if (stats.isDirectory()) throw refused('is a folder: name it');
  if (!stats.isFIFO() && !stats.isSocket())
    return createReadStream('/dev/stdin', { fd: 0, autoClose: false });
  try {
    return new Socket({ fd: 0, readable: true, writable: false });
  } catch (cause) {
    throw refused('is being read by this program itself', cause);
  }
}

/** To be called when all was read, with the number of bytes. */
export function requireSome(bytes: number): void {
  const message = wasRead
    ? `${INPUT_NAME} was read to its end before: name a file instead`
    : `${INPUT_NAME} is empty: what was to write into the pipe may have failed`;
  wasRead = true;
  if (bytes === 0) throw new RootfsError('IMAGE_INVALID', message, { path: INPUT_NAME });
}

function refused(why: string, cause?: unknown): RootfsError {
  return invalidArgument(`${INPUT_NAME} ${why}`, { path: INPUT_NAME, cause });
}
