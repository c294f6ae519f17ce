// Notices two arguments in the wrong order. Otherwise the error would only say that one of them does not exist.
import { existsSync } from 'node:fs';
import { RootfsError } from '../index.js';

/**
 * Awaits work on two names, one of which must exist. `swapped` turns the path that is missing (`code`) into the one
 * that the other order would give. If that exists, the error says which order is right.
 */
export async function withOrderAdvice<T>(
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
