// Converts a qcow2 image to a raw one with qemu-img.
import { type FileHandle, open, realpath } from 'node:fs/promises';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import * as zlib from 'node:zlib';
import { readBytes, readFully } from '../image/read-bytes.js';
import { programFailed } from '../programs/program-failed.js';
import { runInstalled } from '../programs/run-program.js';
import { RootfsError } from '../system/errors.js';
import { writeOfMode } from '../system/make-files.js';
import type { Task } from '../system/task.js';
import { tooLarge } from './tree/limits.js';

const QEMU_IMG = { name: 'qemu-img', package: 'qemu-utils', notFound: 'PROGRAM_NOT_FOUND' } as const;

// From QEMU's docs/interop/qcow2.rst.
const MAGIC = 'QFI\xfb';
const HEADER_BYTES = 104;
const INCOMPAT_CORRUPT = 2n;
const INCOMPAT_EXTERNAL_DATA = 4n;
const INCOMPAT_EXTENDED_L2 = 16n;
const OFFSET_BITS = 0x00ff_ffff_ffff_fe00n;
const COMPRESSED = 1n << 62n;
const READS_AS_ZEROS = 1n;
const SUBCLUSTERS = 32;
const SECTOR_BYTES = 512;

const PIECE_BYTES = 64 * 1024;

const inflateRaw = promisify<Buffer, zlib.ZlibOptions, Buffer>(zlib.inflateRaw);

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
  // qemu-img could read a path without a leading slash as a protocol: `nbd:…`. /dev/stdin would be its own.
  const real = await realpath(path);
  // A name that is not UTF-8 can be no argument, but qemu-img follows a link to it.
  const file = real.includes('\ufffd') ? resolve(path) : real;
  const args = ['convert', '-q', '-f', 'qcow2', '-O', 'raw', file, resolve(dest)];
  await writeOfMode(dest, '');
  const exit = await runInstalled(QEMU_IMG, args, task.signal, { diesWithUs: true });
  if (exit.status !== 0) throw programFailed('IMAGE_INVALID', QEMU_IMG.name, source, exit);
}

/** An untrusted image could name another file on this host, and publishing it would publish that file's contents. */
async function requirePublishable(path: string, source: string, maxBytes: number): Promise<void> {
  const header = await readBytes(path, 0, HEADER_BYTES);
  const refuse = (why: string) => new RootfsError('IMAGE_INVALID', `${source} ${why}`, { path: source });
  if (header.toString('latin1', 0, 4) !== MAGIC)
    throw refuse('is not a qcow2 image: leave the format out, and it is detected');
  if (header.length < 72) throw refuse('is not a qcow2 image: it ends within its header');
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

/** Where the tables lie that tell where the clusters of the disk are. */
interface Layout {
  readonly diskBytes: number;
  readonly clusterBits: number;
  readonly clusterBytes: number;
  /** Length of an entry in a table of the second level: with subclusters it is twice as long. */
  readonly entryBytes: number;
  readonly firstLevel: { readonly at: number; readonly bytes: number };
}

/** qemu-img reads zeros behind the end of a file: one that was cut off would give a disk with zeros in its files. */
async function requireWhole(task: Task, path: string, source: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    const layout = await layoutOf(file);
    if (layout === undefined || (await new Clusters(file, (await file.stat()).size, layout).areWhole(task)))
      return;
    throw new RootfsError('IMAGE_INVALID', `${source} was cut off: its data lies behind its end`, {
      path: source,
    });
  } finally {
    await file.close();
  }
}

/** Undefined for a size of clusters that qemu-img refuses. */
async function layoutOf(file: FileHandle): Promise<Layout | undefined> {
  const header = Buffer.alloc(HEADER_BYTES);
  await readFully(file, header, 0);
  const clusterBits = header.readUInt32BE(20);
  if (clusterBits < 9 || clusterBits > 21) return undefined;
  const clusterBytes = 2 ** clusterBits;
  const isExtended =
    header.readUInt32BE(4) >= 3 && (header.readBigUInt64BE(72) & INCOMPAT_EXTENDED_L2) !== 0n;
  const entryBytes = isExtended ? 16 : 8;
  const diskBytes = Number(header.readBigUInt64BE(24));
  const tables = Math.min(
    header.readUInt32BE(36),
    Math.ceil(((diskBytes / clusterBytes) * entryBytes) / clusterBytes),
  );
  return {
    diskBytes,
    clusterBits,
    clusterBytes,
    entryBytes,
    firstLevel: { at: Number(header.readBigUInt64BE(40)), bytes: tables * 8 },
  };
}

class Clusters {
  readonly #file: FileHandle;
  readonly #size: number;
  readonly #layout: Layout;
  /** The compressed cluster that lies last in the file, and ends in its last sector. */
  #lastCompressedAt = 0;

  constructor(file: FileHandle, size: number, layout: Layout) {
    this.#file = file;
    this.#size = size;
    this.#layout = layout;
  }

  /** Whether the file has all of them. */
  async areWhole(task: Task): Promise<boolean> {
    const { firstLevel, clusterBytes, entryBytes } = this.#layout;
    const tableCovers = (clusterBytes / entryBytes) * clusterBytes;
    let diskAt = 0;
    for await (const tables of this.#piecesOf(firstLevel.at, firstLevel.bytes)) {
      if (tables === undefined) return false;
      for (let i = 0; i < tables.length; i += 8, diskAt += tableCovers) {
        const tableAt = Number(tables.readBigUInt64BE(i) & OFFSET_BITS);
        task.checkAborted();
        if (tableAt !== 0 && !(await this.#hasData(tableAt, diskAt))) return false;
      }
    }
    return this.#lastCompressedAt === 0 || this.#inflates(this.#lastCompressedAt);
  }

  /** Whether the file has the clusters of a table of the second level, the first of which is at `from` of the disk. */
  async #hasData(tableAt: number, from: number): Promise<boolean> {
    const { clusterBytes, entryBytes } = this.#layout;
    let diskAt = from;
    for await (const entries of this.#piecesOf(tableAt, clusterBytes)) {
      if (entries === undefined) return false;
      for (let i = 0; i < entries.length; i += entryBytes, diskAt += clusterBytes)
        if (!this.#isHeld(entries, i, diskAt)) return false;
    }
    return true;
  }

  #isHeld(table: Buffer, at: number, diskAt: number): boolean {
    const { diskBytes, clusterBytes, entryBytes } = this.#layout;
    const entry = table.readBigUInt64BE(at);
    if ((entry & COMPRESSED) !== 0n) return this.#isCompressedHeld(entry);
    const start = Number(entry & OFFSET_BITS);
    if (start === 0) return true;
    // The part of the last cluster behind the end of the disk does not count.
    const used = Math.min(clusterBytes, diskBytes - diskAt);
    if (entryBytes === 8) return (entry & READS_AS_ZEROS) !== 0n || start + used <= this.#size;
    const allocated = SUBCLUSTERS - Math.clz32(table.readUInt32BE(at + 12));
    return start + Math.min((allocated * clusterBytes) / SUBCLUSTERS, used) <= this.#size;
  }

  /** Its length is known in sectors only, and a file may end within the last of them. */
  #isCompressedHeld(entry: bigint): boolean {
    const offsetBits = BigInt(62 - (this.#layout.clusterBits - 8));
    const start = Number(BigInt.asUintN(Number(offsetBits), entry));
    const more = Number(BigInt.asUintN(62, entry) >> offsetBits);
    const lastSector = Math.floor(start / SECTOR_BYTES + more) * SECTOR_BYTES;
    if (lastSector + SECTOR_BYTES > this.#size && start > this.#lastCompressedAt)
      this.#lastCompressedAt = start;
    return Math.max(start, lastSector) < this.#size;
  }

  /** qemu-img takes the zeros behind the end of a file for compressed data, and often finds some. */
  async #inflates(at: number): Promise<boolean> {
    const { clusterBytes } = this.#layout;
    const bytes = Buffer.alloc(Math.min(clusterBytes, this.#size - at));
    await readFully(this.#file, bytes, at);
    try {
      await inflateRaw(bytes, { maxOutputLength: clusterBytes });
      return true;
    } catch (error) {
      // qemu-img finds the rest: other damage, and missing ends of zstd clusters, which zstd reports.
      return (error as { code?: string }).code !== 'Z_BUF_ERROR';
    }
  }

  /** A table, in pieces that hold the event loop for a millisecond. Undefined where the file ends. */
  async *#piecesOf(at: number, bytes: number): AsyncGenerator<Buffer | undefined> {
    for (let done = 0; done < bytes; done += PIECE_BYTES) {
      const piece = Buffer.alloc(Math.min(PIECE_BYTES, bytes - done));
      yield (await readFully(this.#file, piece, at + done)) === piece.length ? piece : undefined;
    }
  }
}
