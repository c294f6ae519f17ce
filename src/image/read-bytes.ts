import { open } from 'node:fs/promises';

/** Reads bytes from `offset` on; fewer if the file ends before. */
export async function readBytes(path: string, offset: number, length: number): Promise<Buffer> {
  const file = await open(path, 'r');
  try {
    const bytes = Buffer.alloc(length);
    let done = 0;
    for (let count = 1; count > 0 && done < length; done += count) {
      count = (await file.read(bytes, done, length - done, offset + done)).bytesRead;
    }
    return bytes.subarray(0, done);
  } finally {
    await file.close();
  }
}
