import { constants, type FileHandle, open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { failedWith } from '../system/errors.js';

// A process that asks whether the file is in use, as this library does, holds a lease on it for an instant.
const TRIES = 10;
const REST_MS = 10;

/**
 * Reads bytes from `offset` on; fewer if the file ends before. EAGAIN if another process keeps a lease on the file:
 * waiting for it would take one of Node's threads for as long as /proc/sys/fs/lease-break-time, 45 s.
 */
export async function readBytes(path: string, offset: number, length: number): Promise<Buffer> {
  const file = await openUnwaiting(path);
  try {
    const bytes = Buffer.alloc(length);
    return bytes.subarray(0, await readFully(file, bytes, offset));
  } finally {
    await file.close();
  }
}

async function openUnwaiting(path: string): Promise<FileHandle> {
  for (let tries = 1; ; tries++) {
    try {
      return await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (error) {
      if (tries === TRIES || !failedWith(error, 'EAGAIN')) throw error;
      await sleep(REST_MS);
    }
  }
}

/** Reads to the end of the buffer or of the file. Returns the number of bytes. */
export async function readFully(file: FileHandle, buffer: Buffer, position: number): Promise<number> {
  let done = 0;
  while (done < buffer.length) {
    const { bytesRead } = await file.read(buffer, done, buffer.length - done, position + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}
