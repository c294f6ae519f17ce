// What a file to be published is, told by its first bytes.
import { readBytes } from '../image/read-bytes.js';

/** What `publishStack` takes. A compressed file holds an image, a qcow2 or a tar. */
export type ImageFormat = 'raw' | 'gzip' | 'zstd' | 'xz' | 'qcow2' | 'tar' | 'folder' | 'container';

/** What a caller can say that a source is: a container image says it itself. */
export const IMAGE_FORMATS: readonly ImageFormat[] = ['raw', 'gzip', 'zstd', 'xz', 'qcow2', 'tar', 'folder'];

export type Compression = Extract<ImageFormat, 'gzip' | 'zstd' | 'xz'>;

/** What is not compressed, or what came out of that. */
export type PlainFormat = Extract<ImageFormat, 'raw' | 'qcow2' | 'tar'>;

interface Magic {
  readonly format: Exclude<ImageFormat, 'raw' | 'folder' | 'container'>;
  readonly offset: number;
  readonly bytes: Buffer;
}

const MAGICS: readonly Magic[] = [
  { format: 'gzip', offset: 0, bytes: Buffer.from([0x1f, 0x8b]) },
  { format: 'zstd', offset: 0, bytes: Buffer.from([0x28, 0xb5, 0x2f, 0xfd]) },
  { format: 'xz', offset: 0, bytes: Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]) },
  { format: 'qcow2', offset: 0, bytes: Buffer.from([0x51, 0x46, 0x49, 0xfb]) },
  // POSIX follows it by a NUL, old GNU tar by a space. Older tars have nothing of the kind, and have to be named.
  { format: 'tar', offset: 257, bytes: Buffer.from('ustar') },
];

const HEAD_BYTES = 512;

/** `raw` is what has no magic of the others: its superblock is looked at later. */
export async function formatOf(path: string): Promise<Exclude<ImageFormat, 'folder' | 'container'>> {
  const head = await readBytes(path, 0, HEAD_BYTES);
  const found = MAGICS.find(({ offset, bytes }) =>
    head.subarray(offset, offset + bytes.length).equals(bytes),
  );
  return found?.format ?? 'raw';
}

export function isCompression(format: ImageFormat): format is Compression {
  return format === 'gzip' || format === 'zstd' || format === 'xz';
}
