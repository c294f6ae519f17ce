// Detects the format of a file to publish from its first bytes.
import { readBytes } from '../image/read-bytes.js';
import { looksLikeTar, TAR_BLOCK_BYTES } from './tar/header.js';

/** What `publishStack` accepts. A compressed file contains an image, a qcow2 or a tar. */
export type ImageFormat = 'raw' | 'gzip' | 'zstd' | 'xz' | 'qcow2' | 'tar' | 'folder' | 'container';

/** Formats that a caller can state. A container image is recognised by its reference. */
export const IMAGE_FORMATS: readonly ImageFormat[] = ['raw', 'gzip', 'zstd', 'xz', 'qcow2', 'tar', 'folder'];

export type Compression = Extract<ImageFormat, 'gzip' | 'zstd' | 'xz'>;

/** The format of uncompressed or decompressed data. */
export type PlainFormat = Extract<ImageFormat, 'raw' | 'qcow2' | 'tar'>;

interface Magic {
  readonly format: Exclude<ImageFormat, 'raw' | 'folder' | 'container' | 'tar'>;
  readonly bytes: Buffer;
}

const MAGICS: readonly Magic[] = [
  { format: 'gzip', bytes: Buffer.from([0x1f, 0x8b]) },
  { format: 'zstd', bytes: Buffer.from([0x28, 0xb5, 0x2f, 0xfd]) },
  { format: 'xz', bytes: Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]) },
  { format: 'qcow2', bytes: Buffer.from('QFI\xfb', 'latin1') },
];

// RFC 8878 and LZ4 both allow skippable frames, which carry no data, before any other frame. pzstd writes one.
const SKIPPABLE_MAGIC = 0x184d2a50;
const SKIPPABLE_HEADER_BYTES = 8;
const SKIPPABLE_FRAMES_LIMIT = 1024;

/** `raw` means that no known magic matched. The superblock is checked later. */
export async function formatOf(path: string): Promise<Exclude<ImageFormat, 'folder' | 'container'>> {
  const head = await readBytes(path, 0, TAR_BLOCK_BYTES);
  const magic = await firstBytesAfterSkippable(path, head);
  const found = MAGICS.find(({ bytes }) => magic.subarray(0, bytes.length).equals(bytes));
  return found?.format ?? (looksLikeTar(head) ? 'tar' : 'raw');
}

export function isCompression(format: ImageFormat): format is Compression {
  return format === 'gzip' || format === 'zstd' || format === 'xz';
}

/**
 * The magic of the first frame that holds data.
 *
 * @internal
 */
export async function firstBytesAfterSkippable(path: string, head: Buffer): Promise<Buffer> {
  let frame = head;
  let at = 0;
  for (let count = 0; count < SKIPPABLE_FRAMES_LIMIT && isSkippable(frame); count++) {
    at += SKIPPABLE_HEADER_BYTES + frame.readUInt32LE(4);
    frame = await readBytes(path, at, SKIPPABLE_HEADER_BYTES);
  }
  return frame;
}

function isSkippable(frame: Buffer): boolean {
  // The last four bits are arbitrary. (>>> keeps the number unsigned.)
  return frame.length >= SKIPPABLE_HEADER_BYTES && (frame.readUInt32LE(0) & ~0xf) >>> 0 === SKIPPABLE_MAGIC;
}
