// Converts a qcow2 image to a raw one with qemu-img.
import { resolve } from 'node:path';
import { readBytes } from '../image/read-bytes.js';
import { RootfsError } from '../system/errors.js';
import { programFailed, runInstalled } from '../system/programs.js';
import type { Task } from '../system/task.js';
import { tooLarge } from './tree/limits.js';

const QEMU_IMG = { name: 'qemu-img', package: 'qemu-utils', notFound: 'PROGRAM_NOT_FOUND' } as const;

// From QEMU's docs/interop/qcow2.rst.
const HEADER_BYTES = 104;
const INCOMPAT_CORRUPT = 2n;
const INCOMPAT_EXTERNAL_DATA = 4n;

/**
 * Rejects with `IMAGE_INVALID` unless the image is intact and stored in this one file. `source` is used in messages.
 */
export async function convertQcow2(
  { signal }: Task,
  path: string,
  source: string,
  dest: string,
  maxBytes: number,
): Promise<void> {
  await requirePublishable(path, source, maxBytes);
  // qemu-img could read a path without a leading slash as a protocol: `nbd:…`.
  const args = ['convert', '-q', '-f', 'qcow2', '-O', 'raw', resolve(path), resolve(dest)];
  const exit = await runInstalled(QEMU_IMG, args, signal);
  if (exit.status !== 0) throw programFailed('IMAGE_INVALID', QEMU_IMG.name, source, exit);
}

/** An untrusted image could name another file on this host, and publishing it would publish that file's contents. */
async function requirePublishable(path: string, source: string, maxBytes: number): Promise<void> {
  const header = await readBytes(path, 0, HEADER_BYTES);
  const refuse = (why: string) => new RootfsError('IMAGE_INVALID', `${source} ${why}`, { path: source });
  if (header.length < 72) throw refuse('is no qcow2 image: it ends within its header');
  const version = header.readUInt32BE(4);
  if (version < 2)
    throw refuse('is a qcow image of version 1: convert it with qemu-img convert -f qcow -O raw');
  if (header.readBigUInt64BE(8) !== 0n)
    throw refuse('has a backing file: flatten it with qemu-img convert -O qcow2');
  if (header.readUInt32BE(32) !== 0) throw refuse('is encrypted: decrypt it first');
  const sizeBytes = header.readBigUInt64BE(24);
  if (sizeBytes > BigInt(maxBytes))
    throw tooLarge(source, `holds a disk of ${sizeBytes} bytes`, 'limits.maxBytes');
  if (version < 3) return;
  // A dirty image (bit 0) still holds all its data. Only its reference counts need repair.
  const features = header.length < HEADER_BYTES ? INCOMPAT_EXTERNAL_DATA : header.readBigUInt64BE(72);
  if ((features & INCOMPAT_CORRUPT) !== 0n)
    throw refuse(
      'is marked as corrupt: look at it with qemu-img check, repair it with qemu-img check -r all',
    );
  if ((features & INCOMPAT_EXTERNAL_DATA) !== 0n)
    throw refuse('keeps its data in another file: flatten it with qemu-img convert -O qcow2');
}
