// Fetches a blob into a file, from where an earlier try ended.

import { createHash, type Hash } from 'node:crypto';
import { constants, type FileHandle, open } from 'node:fs/promises';
import type { Task } from '../system/task.js';
import type { Blob, BlobReader, ReadOptions } from './blob-reader.js';
import { mismatch } from './fetch-pack.js';

export interface FileRequest {
  readonly blob: Blob;
  /** May hold the start of the blob already. */
  readonly path: string;
  /** How much of the blob to fetch. The blob is compared with its digest if that is all of it. */
  readonly end: number;
  readonly onWritten: (bytesDone: number) => void;
}

const READ_BYTES = 1024 * 1024;
const ZEROS = Buffer.alloc(READ_BYTES);

/**
 * Zeros become holes. Wrong bytes are fetched once more, from the origin. Rejects with `DIGEST_MISMATCH`, or the
 * reader's codes.
 */
export async function fetchFile(
  task: Task,
  reader: BlobReader,
  request: FileRequest,
  options: ReadOptions,
): Promise<void> {
  const { blob, path, end } = request;
  const file = await open(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  try {
    for (const fromOrigin of [false, true]) {
      if (fromOrigin) await file.truncate(0);
      const digest = await fetchRest(task, reader, file, request, { ...options, fromOrigin });
      if (end < blob.size || digest === blob.digest) return;
    }
  } finally {
    await file.close();
  }
  throw mismatch(blob, new Error('it has another digest'));
}

/** Returns the digest of what is there then. */
async function fetchRest(
  task: Task,
  reader: BlobReader,
  file: FileHandle,
  { blob, end, onWritten }: FileRequest,
  options: ReadOptions,
): Promise<string> {
  let hash = createHash('sha256');
  let at = await hashWritten(task, file, hash, blob);
  for await (const part of reader.read(task, blob, at, Math.max(at, end), options)) {
    if (part.start !== at) {
      // The registry sends all of it.
      hash = createHash('sha256');
      at = part.start;
      await file.truncate(at);
    }
    hash.update(part.bytes);
    await writeSparsely(file, part.bytes, at);
    at += part.bytes.length;
    onWritten(at);
  }
  await file.truncate(at);
  return `sha256:${hash.digest('hex')}`;
}

/** Returns how much there is. */
async function hashWritten(task: Task, file: FileHandle, hash: Hash, { size }: Blob): Promise<number> {
  if ((await file.stat()).size > size) await file.truncate(0);
  const buffer = Buffer.allocUnsafe(READ_BYTES);
  for (let at = 0; ; ) {
    task.checkAborted();
    const { bytesRead } = await file.read(buffer, 0, READ_BYTES, at);
    if (bytesRead === 0) return at;
    hash.update(buffer.subarray(0, bytesRead));
    at += bytesRead;
  }
}

async function writeSparsely(file: FileHandle, bytes: Buffer, at: number): Promise<void> {
  if (bytes.length <= ZEROS.length && bytes.equals(ZEROS.subarray(0, bytes.length))) return;
  for (let done = 0; done < bytes.length; )
    done += (await file.write(bytes, done, bytes.length - done, at + done)).bytesWritten;
}
