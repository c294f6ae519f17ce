// Two names in the wrong order look like two that are not there.
import { existsSync } from 'node:fs';
import { RootfsError } from '../index.js';

/**
 * Work on two names of which one is looked for. If that is not there (`code`), but the other is (`swapped`, its path),
 * the error tells the order.
 */
export async function inOrder<T>(work: Promise<T>, code: string, swapped: string, order: string): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof RootfsError) || error.code !== code || !existsSync(swapped)) throw error;
    const { message, path } = error;
    throw new RootfsError(code, `${message}; the order is: ${order}`, { path, cause: error });
  }
}
