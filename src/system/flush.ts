import { open } from 'node:fs/promises';
import { failedWith } from './errors.js';

/** fsync of a file or a folder. File systems that can't be written to answer EINVAL: nothing there is unflushed. */
export async function flush(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync().catch((error) => {
      if (!failedWith(error, 'EINVAL')) throw error;
    });
  } finally {
    await file.close();
  }
}
