import { open } from 'node:fs/promises';

/** The first bytes of a file, fewer if it is shorter. */
export async function readHead(path: string, length: number): Promise<Buffer> {
  const file = await open(path, 'r');
  try {
    const bytes = Buffer.alloc(length);
    let done = 0;
    for (let count = 1; count > 0 && done < length; done += count) {
      count = (await file.read(bytes, done, length - done, done)).bytesRead;
    }
    return bytes.subarray(0, done);
  } finally {
    await file.close();
  }
}
