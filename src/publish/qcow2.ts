// Converts a qcow2 image to a raw one with qemu-img.
import { type FileHandle, open } from 'node:fs/promises';
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
const INCOMPAT_EXTENDED_L2 = 16n;
const OFFSET_BITS = 0x00ff_ffff_ffff_fe00n;
const COMPRESSED = 1n << 62n;
const READS_AS_ZEROS = 1n;

/**
 * Rejects with `IMAGE_INVALID` unless the image is intact and stored in this one file. `source` is used in messages.
 */
export async function convertQcow2(
  task: Task,
  path: string,
  source: string,
  dest: string,
  maxBytes: number,
): Promise<void> {
  await requirePublishable(path, source, maxBytes);
  await requireWhole(task, path, source);
  // qemu-img could read a path without a leading slash as a protocol: `nbd:…`.
  const args = ['convert', '-q', '-f', 'qcow2', '-O', 'raw', resolve(path), resolve(dest)];
  const exit = await runInstalled(QEMU_IMG, args, task.signal);
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

/** qemu-img reads zeros behind the end of a file: one that was cut off would give a disk with zeros in its files. */
async function requireWhole(task: Task, path: string, source: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    const header = await readFrom(file, 0, HEADER_BYTES);
    const clusterBits = header.readUInt32BE(20);
    // qemu-img refuses any other.
    if (clusterBits < 9 || clusterBits > 21) return;
    const clusterBytes = 2 ** clusterBits;
    const isExtended =
      header.readUInt32BE(4) >= 3 && (header.readBigUInt64BE(72) & INCOMPAT_EXTENDED_L2) !== 0n;
    const entryBytes = isExtended ? 16 : 8;
    const diskClusters = Number(header.readBigUInt64BE(24)) / clusterBytes;
    const tables = Math.min(header.readUInt32BE(36), Math.ceil((diskClusters * entryBytes) / clusterBytes));
    const cutOff = () =>
      new RootfsError('IMAGE_INVALID', `${source} was cut off: its data lies behind its end`, {
        path: source,
      });
    const l1At = Number(header.readBigUInt64BE(40));
    for (let at = 0; at < tables * 8; at += clusterBytes) {
      const bytes = Math.min(clusterBytes, tables * 8 - at);
      if (l1At + at + bytes > size) throw cutOff();
      const l1 = await readFrom(file, l1At + at, bytes);
      for (let i = 0; i < bytes; i += 8) {
        const tableAt = Number(l1.readBigUInt64BE(i) & OFFSET_BITS);
        if (tableAt === 0) continue;
        task.checkAborted();
        if (tableAt + clusterBytes > size) throw cutOff();
        const table = await readFrom(file, tableAt, clusterBytes);
        for (let k = 0; k < clusterBytes; k += entryBytes)
          if (dataAt(table, k, isExtended) >= size) throw cutOff();
      }
    }
  } finally {
    await file.close();
  }
}

/** Where a cluster's data begins in the file; 0 if it has none, or is compressed: qemu-img fails for half of one. */
function dataAt(table: Buffer, at: number, isExtended: boolean): number {
  const entry = table.readBigUInt64BE(at);
  if ((entry & COMPRESSED) !== 0n) return 0;
  const isZero = isExtended ? table.readUInt32BE(at + 12) === 0 : (entry & READS_AS_ZEROS) !== 0n;
  return isZero ? 0 : Number(entry & OFFSET_BITS);
}

async function readFrom(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  for (let done = 0, count = 1; count > 0 && done < length; done += count)
    count = (await file.read(bytes, done, length - done, offset + done)).bytesRead;
  return bytes;
}
