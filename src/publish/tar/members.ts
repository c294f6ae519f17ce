// Reads the members of a tar: combines each header with what precedes it (long names, pax records) and what follows it
// (sparse maps).
import type { Segment } from '../tree/file-tree.js';
import {
  isZeroBlock,
  parseHeader,
  parseMoreSparse,
  type SparsePart,
  TAR_BLOCK_BYTES,
  type TarHeader,
} from './header.js';
import { type PaxRecord, parsePax, parsePaxTime } from './pax.js';

export interface TarMember {
  readonly path: Buffer;
  readonly type: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeNs: bigint;
  readonly linkTarget: Buffer;
  readonly major: number;
  readonly minor: number;
  /** The length of the file, and where its bytes are in the tar. */
  readonly sizeBytes: number;
  readonly segments: readonly Segment[];
  /** Includes extended attributes and ACLs. */
  readonly pax: readonly PaxRecord[];
}

/** What is wrong with the tar, worded to follow its name. */
export class TarDamaged extends Error {}

/** It ends too early. */
export class TarCutOff extends TarDamaged {}

// Read size. Headers of small files are close together.
export const WINDOW_BYTES = 128 * 1024;

// Limit for a name or the pax records of one file. Maps of sparse files are the longest that mean something.
const META_LIMIT = 16 * 1024 * 1024;
/** Of the path of a member, from the root: deeper than any limit of depth that makes sense. */
const PATH_LIMIT = 1024 * 1024;
/** Of a symbolic link: PATH_MAX of Linux, without the NUL. */
const LINK_LIMIT = 4095;
/** In all files of a tar: each takes memory, and a block of the image. */
const SPARSE_PARTS_LIMIT = 1_000_000;

// Programs that write global records write one or two. Each member is looked for in all of them.
const GLOBAL_RECORDS_LIMIT = 100;
const GLOBAL_BYTES_LIMIT = 64 * 1024;

/** Records that are read. A tar may have any number of others, such as comments. */
const READ_RECORD =
  /^(path|linkpath|size|uid|gid|mtime)$|^GNU\.sparse\.|^SCHILY\.(xattr|acl)\.|^LIBARCHIVE\.xattr\./;

/** What a tar is read from, such as a `FileHandle`. */
export interface TarBytes {
  read(buffer: Buffer, offset: number, length: number, position: number): Promise<{ bytesRead: number }>;
}

/**
 * `sizeBytes` is infinite where only the start is there. `onOddEnd` is called with what is wrong with the end of a tar
 * whose members are whole. Throws {@link TarDamaged}.
 */
export function readMembers(
  bytes: TarBytes,
  sizeBytes: number,
  onOddEnd: (why: string) => void,
): AsyncGenerator<TarMember> {
  return new TarReader(bytes, sizeBytes, onOddEnd).members();
}

class TarReader {
  readonly #bytes: TarBytes;
  readonly #size: number;
  readonly #onOddEnd: (why: string) => void;
  #at = 0;
  #sparseParts = 0;
  #window: Buffer = Buffer.alloc(0);
  #windowAt = 0;
  // Records for all following members, and records for the next member only.
  readonly #global = new Map<string, PaxRecord>();
  #pax: PaxRecord[] = [];
  /** Pax came before, whether or not with a record that is read. */
  #isPax = false;
  #longPath: Buffer | undefined;
  #longTarget: Buffer | undefined;

  constructor(bytes: TarBytes, size: number, onOddEnd: (why: string) => void) {
    this.#bytes = bytes;
    this.#size = size;
    this.#onOddEnd = onOddEnd;
  }

  async *members(): AsyncGenerator<TarMember> {
    for (;;) {
      // Not every program writes the two zero blocks at the end.
      if (this.#at === this.#size && this.#at > 0) {
        this.#onOddEnd('has no mark of its end: if the program that made it writes one, it was cut off');
        return;
      }
      const block = await this.#take(TAR_BLOCK_BYTES);
      if (isZeroBlock(block)) return this.#readEnd();
      const header = parseHeader(block);
      if (header === undefined)
        throw new TarDamaged(`has no header of a tar at byte ${this.#at - TAR_BLOCK_BYTES}`);
      const member = await this.#member(header);
      if (member !== undefined) yield member;
    }
  }

  /** After the first block of zeros. What other programs leave out from here on must not be left out in silence. */
  async #readEnd(): Promise<void> {
    if (this.#size === Number.POSITIVE_INFINITY) return;
    for (let blocks = 1; this.#at + TAR_BLOCK_BYTES <= this.#size; blocks++) {
      const at = this.#at;
      const block = await this.#take(TAR_BLOCK_BYTES);
      if (isZeroBlock(block)) continue;
      if (blocks === 1)
        throw new TarDamaged(
          `has a block of zeros before byte ${at}, where a member should begin: it was damaged, get it again`,
        );
      if (parseHeader(block) !== undefined)
        throw new TarDamaged(
          `goes on at byte ${at}, behind its end: make one of such tars with tar --concatenate, or publish each`,
        );
      this.#onOddEnd(`has more behind its end, at byte ${at}, which is left out`);
      return;
    }
  }

  /** Undefined if it only describes the next member. */
  async #member(header: TarHeader): Promise<TarMember | undefined> {
    switch (header.type) {
      case 'L':
        this.#longPath = withoutNul(await this.#meta(header));
        return undefined;
      case 'K':
        this.#longTarget = withoutNul(await this.#meta(header));
        return undefined;
      case 'x':
      case 'X':
        this.#isPax = true;
        this.#pax = this.#records(await this.#meta(header));
        return undefined;
      case 'g':
        this.#isPax = true;
        for (const record of this.#records(await this.#meta(header))) this.#global.set(record.key, record);
        this.#limitGlobal();
        return undefined;
      // A volume label.
      case 'V':
        await this.#skip(header.sizeBytes);
        return undefined;
      default: {
        const member = await this.#ordinary(header, [...this.#global.values(), ...this.#pax]);
        this.#pax = [];
        this.#longPath = undefined;
        this.#longTarget = undefined;
        return member;
      }
    }
  }

  #limitGlobal(): void {
    const records = [...this.#global.values()];
    const bytes = records.reduce((sum, { value }) => sum + value.length, 0);
    if (records.length > GLOBAL_RECORDS_LIMIT || bytes > GLOBAL_BYTES_LIMIT)
      throw new TarDamaged(
        `has more than ${GLOBAL_RECORDS_LIMIT} pax records, or ${GLOBAL_BYTES_LIMIT} bytes, for all of its files`,
      );
  }

  async #ordinary(header: TarHeader, pax: readonly PaxRecord[]): Promise<TarMember> {
    // POSIX: an empty value is as if there were none.
    const last = (key: string) => {
      const value = pax.findLast((record) => record.key === key)?.value;
      return value?.length === 0 ? undefined : value;
    };
    const text = (key: string) => last(key)?.toString('latin1');
    const number = (key: string) => {
      const value = text(key);
      if (value !== undefined && !/^-?\d+$/.test(value))
        throw new TarDamaged(`has the ${key} "${value.slice(0, 100)}", which is no number`);
      return value === undefined ? undefined : Number(value);
    };
    const stored = number('size') ?? header.sizeBytes;
    if (!isLength(stored)) throw new TarDamaged('has a member without a size');
    const { sizeBytes, segments } = await this.#contents(header, stored, pax, number);
    const time = text('mtime');
    const mtimeNs = time === undefined ? header.mtimeNs : parsePaxTime(time);
    if (mtimeNs === undefined) throw new TarDamaged(`has the time "${time}", which is no number`);
    const path = last('GNU.sparse.name') ?? last('path') ?? this.#longPath ?? header.path;
    const linkTarget = last('linkpath') ?? this.#longTarget ?? header.linkTarget;
    if (
      Math.max(path.length, linkTarget.length) > PATH_LIMIT ||
      (header.type === '2' && linkTarget.length > LINK_LIMIT)
    )
      throw new TarDamaged(`has a name or a link of more bytes than Linux allows before byte ${this.#at}`);
    const uid = number('uid') ?? header.uid;
    const gid = number('gid') ?? header.gid;
    if (Number.isNaN(uid) || Number.isNaN(gid) || Number.isNaN(header.mode))
      throw new TarDamaged(`has a member whose owner or mode is no number before byte ${this.#at}`);
    return {
      path,
      type: header.type,
      mode: header.mode,
      uid,
      gid,
      mtimeNs,
      linkTarget,
      major: header.major,
      minor: header.minor,
      sizeBytes,
      segments,
      pax,
    };
  }

  /** Skips them. */
  async #contents(
    header: TarHeader,
    stored: number,
    pax: readonly PaxRecord[],
    number: (key: string) => number | undefined,
  ): Promise<{ sizeBytes: number; segments: Segment[] }> {
    if (!HAS_CONTENTS.test(header.type)) {
      // Links and devices have no contents, whatever their header says. The exception is pax hard links, which may have
      // some.
      if (header.type === '1' && header.sizeBytes > 0 && this.#isPax) await this.#skip(stored);
      return { sizeBytes: 0, segments: [] };
    }
    const before = this.#at;
    let parts: SparsePart[] | undefined;
    let sizeBytes = number('GNU.sparse.realsize') ?? number('GNU.sparse.size') ?? stored;
    if (header.sparse !== undefined) {
      parts = await this.#oldSparse(header.sparse);
      sizeBytes = header.sparse.realBytes;
    } else if (number('GNU.sparse.major') === 1) parts = await this.#sparseInContents(stored);
    else parts = sparseInPax(pax);
    this.#sparseParts += parts?.length ?? 0;
    if (this.#sparseParts > SPARSE_PARTS_LIMIT) throw tooManyParts();
    if (!isLength(sizeBytes)) throw new TarDamaged('has a sparse file without a size');
    // GNU's old map is between header and contents. The pax 1.0 map is in the contents.
    const map = header.sparse === undefined ? this.#at - before : 0;
    const from = this.#at;
    await this.#skip(stored - map);
    parts ??= [{ at: 0, length: stored }];
    return { sizeBytes, segments: segmentsOf(parts, from, stored - map, sizeBytes) };
  }

  async #oldSparse(sparse: NonNullable<TarHeader['sparse']>): Promise<SparsePart[]> {
    const parts = [...sparse.parts];
    for (let more = sparse.hasMore; more; ) {
      const next = parseMoreSparse(await this.#take(TAR_BLOCK_BYTES));
      parts.push(...next.parts);
      more = next.hasMore;
      if (parts.length > SPARSE_PARTS_LIMIT) throw tooManyParts();
    }
    return parts;
  }

  /**
   * Parses lines of decimal numbers, padded to a whole block: the number of parts, then the start and length of each.
   */
  async #sparseInContents(stored: number): Promise<SparsePart[]> {
    const numbers: string[] = [];
    let cut = '';
    let wanted = 1;
    for (let left = stored; numbers.length < wanted; left -= TAR_BLOCK_BYTES) {
      if (left < TAR_BLOCK_BYTES) throw new TarDamaged('has a sparse file whose map does not end');
      const lines = (cut + (await this.#take(TAR_BLOCK_BYTES)).toString('latin1')).split('\n');
      cut = lines.pop() as string;
      if (cut.length > NUMBER_LIMIT)
        throw new TarDamaged('has a sparse file whose map is no list of numbers');
      numbers.push(...lines);
      const count = Number(numbers[0] ?? 0);
      if (!(isLength(count) && count <= SPARSE_PARTS_LIMIT)) throw tooManyParts();
      wanted = 1 + 2 * count;
    }
    return pairUp(numbers.slice(1, wanted));
  }

  #records(bytes: Buffer): PaxRecord[] {
    const records = parsePax(bytes, READ_RECORD);
    if (records === undefined) throw new TarDamaged(`has a damaged pax header before byte ${this.#at}`);
    return records;
  }

  async #meta({ sizeBytes }: TarHeader): Promise<Buffer> {
    if (!(sizeBytes >= 0 && sizeBytes <= META_LIMIT))
      throw new TarDamaged(`has a header of ${sizeBytes} bytes before byte ${this.#at}`);
    const bytes = Buffer.from(await this.#take(sizeBytes));
    const rest = sizeBytes % TAR_BLOCK_BYTES;
    if (rest > 0) await this.#take(TAR_BLOCK_BYTES - rest);
    return bytes;
  }

  /** Skips the contents and the padding of their last block. */
  async #skip(length: number): Promise<void> {
    const whole = Math.ceil(length / TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES;
    if (!isLength(length) || this.#at + whole > this.#size) throw cutOff();
    this.#at += whole;
  }

  /** The next bytes, valid until the next call. */
  async #take(length: number): Promise<Buffer> {
    if (this.#at + length > this.#size) throw cutOff();
    const from = this.#at - this.#windowAt;
    if (from < 0 || from + length > this.#window.length) {
      const wanted = Math.min(Math.max(WINDOW_BYTES, length), this.#size - this.#at);
      const window = Buffer.allocUnsafe(wanted);
      let done = 0;
      for (let bytesRead = -1; done < wanted && bytesRead !== 0; done += bytesRead)
        ({ bytesRead } = await this.#bytes.read(window, done, wanted - done, this.#at + done));
      if (done < length) throw cutOff();
      this.#window = window.subarray(0, done);
      this.#windowAt = this.#at;
    }
    const start = this.#at - this.#windowAt;
    this.#at += length;
    return this.#window.subarray(start, start + length);
  }
}

// Digits of the largest number, in a line that ends in the next block. (The padding of the last block has no lines.)
const NUMBER_LIMIT = TAR_BLOCK_BYTES;

function isLength(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

/** Regular files, including old dialects, and the folder lists of GNU tar's incremental backups. */
const HAS_CONTENTS = /^[0\0 7SD]$/;

function cutOff(): TarCutOff {
  return new TarCutOff('was cut off: it ends within a member');
}

function tooManyParts(): TarDamaged {
  return new TarDamaged(`has sparse files of more than ${SPARSE_PARTS_LIMIT} parts`);
}

function withoutNul(bytes: Buffer): Buffer {
  const end = bytes.indexOf(0);
  return end < 0 ? bytes : bytes.subarray(0, end);
}

/** GNU formats 0.0 and 0.1. Undefined if the file is not sparse. */
function sparseInPax(pax: readonly PaxRecord[]): SparsePart[] | undefined {
  const map = pax.findLast(({ key }) => key === 'GNU.sparse.map')?.value.toString('latin1');
  if (map !== undefined) {
    const numbers = map === '' ? [] : map.split(',', 2 * SPARSE_PARTS_LIMIT + 2);
    return pairUp(numbers);
  }
  const numbers = pax
    .filter(({ key }) => key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes')
    .map(({ value }) => value.toString('latin1'));
  return numbers.length === 0 ? undefined : pairUp(numbers);
}

function pairUp(numbers: readonly string[]): SparsePart[] {
  const parts: SparsePart[] = [];
  for (let i = 0; i + 1 < numbers.length; i += 2)
    parts.push({ at: Number(numbers[i]), length: Number(numbers[i + 1]) });
  return parts;
}

function segmentsOf(
  parts: readonly SparsePart[],
  from: number,
  stored: number,
  sizeBytes: number,
): Segment[] {
  const segments: Segment[] = [];
  let end = 0;
  let done = 0;
  for (const { at, length } of parts) {
    if (!(Number.isSafeInteger(at) && Number.isSafeInteger(length) && at >= end && length >= 0))
      throw new TarDamaged('has a sparse file whose parts are not in order');
    end = at + length;
    if (length > 0) segments.push({ at, length, from: from + done });
    done += length;
  }
  if (end > sizeBytes || done > stored)
    throw new TarDamaged('has a sparse file with more data than its length');
  return segments;
}
