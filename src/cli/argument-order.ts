// Two names in the wrong order look like two that are not there.
import { existsSync } from 'node:fs';
import { RootfsError } from '../index.js';

/**
 * Work on two names of which one is looked for. If that is not at its path (`code`), but the other is at that which
 * `swapped` makes of it, the error tells the order.
 */
export async function inOrder<T>(
  work: Promise<T>,
  code: string,
  swapped: (path: string) => string,
  order: string,
): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof RootfsError) || error.code !== code || error.path === undefined) throw error;
    const { message, path } = error;
    if (!existsSync(swapped(path))) throw error;
    throw new RootfsError(code, `${message}; the order is: ${order}`, { path, cause: error });
  }
}
