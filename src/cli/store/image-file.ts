// The image file of a store. Its space is reserved by default: in a sparse file, the file system would accept writes
// for which its disk may have no space later, and lose them.
import { stat, statfs, truncate } from 'node:fs/promises';
import { dirname } from 'node:path';
import { RootfsError } from '../../index.js';
import { mountOf } from '../mounts.js';
import { formatSize } from '../sizes.js';
import { runProgram, storeProgramFailed, tryProgram } from './store-error.js';

export interface ImageFile {
  readonly sizeBytes: number;
  readonly allocatedBytes: number;
}

export async function imageFile(path: string): Promise<ImageFile> {
  let status: Awaited<ReturnType<typeof stat>>;
  try {
    status = await stat(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new RootfsError('STORE_NOT_FOUND', `there is no store ${path}`, { path, cause: error });
  }
  if (!status.isFile())
    throw new RootfsError('STORE_INVALID', `${path} is not a regular file, so it is not a store`, { path });
  return { sizeBytes: status.size, allocatedBytes: status.blocks * 512 };
}

/**
 * On btrfs, writing over reserved blocks takes new ones, unless the file was marked when it was empty. (ZFS and
 * bcachefs have no such mark: a reservation is worth nothing there.)
 */
export async function writeInPlace(path: string, signal: AbortSignal): Promise<void> {
  if ((await mountOf(path))?.type !== 'btrfs') return;
  await runProgram('chattr', ['+C', path], signal, path);
}

/**
 * Makes the file longer; all of the new part is reserved unless `sparse`. A failure may leave some of it. `name` is for
 * messages.
 */
export async function extendImageFile(
  path: string,
  toBytes: number,
  sparse: boolean,
  signal: AbortSignal,
  name = path,
): Promise<void> {
  const { sizeBytes } = await imageFile(path);
  if (sparse) return truncate(path, toBytes);
  await requireSpace(name, toBytes - sizeBytes);
  await reserve(path, sizeBytes, toBytes - sizeBytes, signal);
}

async function requireSpace(path: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(dirname(path));
  const free = bavail * bsize;
  if (free >= bytes) return;
  throw new RootfsError(
    'ENOSPC',
    `${path} needs ${formatSize(bytes)} and its disk has ${formatSize(free)} free: ask for less, or make room`,
    { path },
  );
}

async function reserve(path: string, offset: number, length: number, signal: AbortSignal): Promise<void> {
  const range = ['--offset', `${offset}`, '--length', `${length}`, path];
  const exit = await tryProgram('fallocate', range, signal);
  if (exit.status === 0) return;
  if (!/not supported/i.test(exit.stderr)) throw storeProgramFailed('fallocate', exit, path);
  // Without fallocate, writing zeros reserves the space.
  const zeros = await tryProgram('fallocate', ['--posix', ...range], signal);
  if (zeros.status !== 0) throw storeProgramFailed('fallocate', zeros, path);
}
