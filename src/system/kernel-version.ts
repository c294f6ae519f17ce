import { release } from 'node:os';

/** Whether the kernel, `6.1.0-28-amd64` for example, is of this version or a newer one. */
export function isKernelSince(major: number, minor: number, kernel = release()): boolean {
  const [itsMajor = 0, itsMinor = 0] = kernel.split('.', 2).map((part) => Number.parseInt(part, 10));
  return itsMajor > major || (itsMajor === major && itsMinor >= minor);
}
