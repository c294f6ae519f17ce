import { type FileHandle, open } from 'node:fs/promises';

/** Reads bytes from `offset` on; fewer if the file ends before. */
export async function readBytes(path: string, offset: number, length: number): Promise<Buffer> {
  const file = await open(path, 'r');
  try {
    const bytes = Buffer.alloc(length);
    return bytes.subarray(0, await readFully(file, bytes, offset));
  } finally {
    await file.close();
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
