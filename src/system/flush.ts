import { open } from 'node:fs/promises';

/** fsync of a file or a folder. */
export async function flush(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}
