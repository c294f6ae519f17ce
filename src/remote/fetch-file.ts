// Fetches a blob into a file, from where an earlier try ended.

import { createHash, type Hash } from 'node:crypto';
import { constants, type FileHandle } from 'node:fs/promises';
import { writeFully } from '../image/write-bytes.js';
import { openOfMode } from '../system/make-files.js';
import type { Task } from '../system/task.js';
import { type Blob, type BlobReader, wrongBlob } from './blob-reader.js';

interface FileRequest {
  readonly blob: Blob;
  /** May hold the start of the blob already. */
  readonly path: string;
  readonly onWritten: (bytesDone: number) => void;
}

const READ_BYTES = 1024 * 1024;
const ZEROS = Buffer.alloc(READ_BYTES);

/**
 * Zeros become holes. Returns how much of what was there could be kept. What is wrong is fetched once more: if it began
 * with what was there, all of it; else from the origin. Rejects with `DIGEST_MISMATCH`, or the reader's codes.
 */
export async function fetchFile(task: Task, reader: BlobReader, request: FileRequest): Promise<number> {
  const { blob, path } = request;
  const file = await openOfMode(path, constants.O_RDWR | constants.O_CREAT);
  try {
    for (;;) {
      const { kept, digest } = await fetchRest(task, reader, file, request);
      if (digest === blob.digest) return kept;
      await file.truncate(0);
      if (kept === 0) break;
    }
    const { digest } = await fetchRest(task, reader.ofOrigin(), file, request);
    if (digest === blob.digest) return 0;
  } finally {
    await file.close();
  }
  throw wrongBlob(blob, new Error('it has another digest'));
}

interface Fetched {
  /** How much of what was there is still there. */
  readonly kept: number;
  readonly digest: string;
}

async function fetchRest(
  task: Task,
  reader: BlobReader,
  file: FileHandle,
  { blob, onWritten }: FileRequest,
): Promise<Fetched> {
  let hash = createHash('sha256');
  let kept = await hashWritten(task, file, hash, blob);
  let at = kept;
  for await (const part of reader.read(task, blob, at, blob.size)) {
    if (part.start !== at) {
      // The registry sends all of it.
      hash = createHash('sha256');
      kept = 0;
      at = part.start;
      await file.truncate(at);
    }
    hash.update(part.bytes);
    await writeSparsely(file, part.bytes, at);
    at += part.bytes.length;
    onWritten(at);
  }
  await file.truncate(at);
  return { kept, digest: `sha256:${hash.digest('hex')}` };
}

/** Hashes what an earlier try has written. Returns its length. */
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
  await writeFully(file, bytes, at);
}
