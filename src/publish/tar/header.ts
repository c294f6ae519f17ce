// Parses one tar header of any dialect: old Unix, POSIX ustar, GNU. Layout: POSIX.1-2017 pax, "ustar Interchange
// Format", and GNU tar's manual, "Basic Tar Format".

export const TAR_BLOCK_BYTES = 512;

export interface TarHeader {
  readonly path: Buffer;
  readonly type: string;
  /** NaN if it is not a number; so are the owners, the size and the device. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly mtimeNs: bigint;
  readonly linkTarget: Buffer;
  readonly major: number;
  readonly minor: number;
  readonly isOfGnu: boolean;
  /** Whether star wrote it, whose sparse files have their map elsewhere. */
  readonly isOfStar: boolean;
  /** For GNU's own sparse files only. */
  readonly sparse: OldSparse | undefined;
}

export interface OldSparse {
  readonly parts: readonly SparsePart[];
  readonly hasMore: boolean;
  readonly realBytes: number;
}

export interface SparsePart {
  readonly at: number;
  readonly length: number;
}

const CHECKSUM_AT = 148;
const CHECKSUM_BYTES = 8;
const PART_BYTES = 24;

/** Undefined if the block is not a header. */
export function parseHeader(block: Buffer): TarHeader | undefined {
  if (!checksumMatches(block)) return undefined;
  const mtimeS = number(block, 136, 12);
  if (Number.isNaN(mtimeS)) return undefined;
  const magic = block.toString('latin1', 257, 265);
  const isPosix = magic.startsWith('ustar\0');
  const type = block.toString('latin1', 156, 157);
  const name = text(block, 0, 100);
  const prefix = isPosix ? text(block, 345, 155) : Buffer.alloc(0);
  return {
    path: prefix.length > 0 ? Buffer.concat([prefix, Buffer.from('/'), name]) : name,
    type,
    mode: modeOf(block),
    uid: number(block, 108, 8),
    gid: number(block, 116, 8),
    sizeBytes: number(block, 124, 12),
    mtimeNs: BigInt(mtimeS) * 1_000_000_000n,
    linkTarget: text(block, 157, 100),
    // Old dialects have no device numbers there.
    major: magic.startsWith('ustar') ? number(block, 329, 8) : 0,
    minor: magic.startsWith('ustar') ? number(block, 337, 8) : 0,
    isOfGnu: magic === 'ustar  \0',
    isOfStar: isPosix && block.toString('latin1', 508, 512) === 'tar\0',
    sparse:
      type === 'S'
        ? { parts: sparseParts(block, 386, 4), hasMore: block[482] === 1, realBytes: number(block, 483, 12) }
        : undefined,
  };
}

/** A block that continues the map of a sparse file. */
export function parseMoreSparse(block: Buffer): Pick<OldSparse, 'parts' | 'hasMore'> {
  return { parts: sparseParts(block, 0, 21), hasMore: block[504] === 1 };
}

/** Whether the first block of a file looks like a tar header, whatever its magic. */
export function looksLikeTar(block: Buffer): boolean {
  return block.length === TAR_BLOCK_BYTES && block[0] !== 0 && checksumMatches(block);
}

/** The sum of all bytes, with the checksum field read as spaces. Some old programs summed signed bytes. */
function checksumMatches(block: Buffer): boolean {
  const stated = octal(block, CHECKSUM_AT, CHECKSUM_BYTES);
  if (stated === undefined) return false;
  let unsigned = CHECKSUM_BYTES * 0x20;
  let signed = unsigned;
  for (let i = 0; i < TAR_BLOCK_BYTES; i++) {
    if (i >= CHECKSUM_AT && i < CHECKSUM_AT + CHECKSUM_BYTES) continue;
    const byte = block[i] as number;
    unsigned += byte;
    signed += byte < 128 ? byte : byte - 256;
  }
  return stated === unsigned || stated === signed;
}

function sparseParts(block: Buffer, offset: number, count: number): SparsePart[] {
  const parts: SparsePart[] = [];
  for (let i = 0; i < count; i++) {
    const at = offset + i * PART_BYTES;
    // A part without a length ends the map, unless it marks the end of the file.
    if (block[at] === 0) break;
    parts.push({ at: number(block, at, 12), length: number(block, at + 12, 12) });
  }
  return parts;
}

function text(block: Buffer, at: number, length: number): Buffer {
  const field = block.subarray(at, at + length);
  const end = field.indexOf(0);
  return Buffer.from(end < 0 ? field : field.subarray(0, end));
}

/** NaN if it is not a number. */
function modeOf(block: Buffer): number {
  const mode = number(block, 100, 8);
  return Number.isNaN(mode) ? mode : mode & 0o7777;
}

/** Reads octal, or big-endian two's complement if the first bit is set. NaN if it is neither. */
function number(block: Buffer, at: number, length: number): number {
  const first = block[at] as number;
  if ((first & 0x80) === 0) return octal(block, at, length) ?? Number.NaN;
  let value = BigInt.asIntN(7, BigInt(first & 0x7f));
  for (let i = 1; i < length; i++) value = value * 256n + BigInt(block[at + i] as number);
  return Number(value);
}

/** 0 for an empty field, undefined for an invalid one. */
function octal(block: Buffer, at: number, length: number): number | undefined {
  const digits = block
    .toString('latin1', at, at + length)
    .replace(/\0.*$/s, '')
    .trim();
  if (digits === '') return 0;
  return /^-?[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : undefined;
}
