// Reads where the data of a sparse file lies. GNU tar has written such maps in four ways: see "Storing Sparse Files" in
// its manual.

import type { Pause } from '../../system/pause.js';
import type { Segment } from '../tree/file-tree.js';
import { type OldSparse, parseMoreSparse, type SparsePart, TAR_BLOCK_BYTES } from './header.js';
import type { PaxRecord } from './pax.js';
import { MEND, TarDamaged } from './tar-damaged.js';

// All parts of a tar are kept, with about 100 bytes each. Between two parts is a hole of at least 4 KiB.
const PARTS_LIMIT = 1_000_000;

const ZERO = 0x30;
const NINE = 0x39;
const COMMA = 0x2c;
const NEWLINE = 0x0a;

const PIECE_BYTES = 16 * 1024;
const PAUSE_AFTER = 4096;

/** Counts the parts of all sparse files of one tar. */
export class PartCount {
  #parts = 0;

  add(parts: number): void {
    this.#parts += parts;
    if (this.#parts > PARTS_LIMIT)
      throw new TarDamaged(
        `has sparse files of more than ${PARTS_LIMIT} parts in all: make it without --sparse`,
      );
  }
}

/** The parts of one file, added number by number: the start and the length of each. */
export class SparseMap {
  readonly #count: PartCount;
  readonly #segments: { at: number; length: number; from: number }[] = [];
  #start: number | undefined;
  #end = 0;
  #storedBytes = 0;

  constructor(count: PartCount) {
    this.#count = count;
  }

  add(number: number): void {
    const least = this.#start === undefined ? this.#end : 0;
    if (!(Number.isSafeInteger(number) && number >= least))
      throw new TarDamaged(`has a sparse file whose parts are not in order: ${MEND}`);
    if (this.#start === undefined) {
      this.#count.add(1);
      this.#start = number;
      return;
    }
    if (number > 0) this.#segments.push({ at: this.#start, length: number, from: this.#storedBytes });
    this.#end = this.#start + number;
    this.#storedBytes += number;
    this.#start = undefined;
  }

  addAll(parts: readonly SparsePart[]): void {
    for (const { at, length } of parts) {
      this.add(at);
      this.add(length);
    }
  }

  /** `from` is where the data of the file begins in the tar, of which there are `storedBytes`. */
  async segments(
    from: number,
    storedBytes: number,
    sizeBytes: number,
    pause: Pause,
  ): Promise<readonly Segment[]> {
    if (this.#end > sizeBytes || this.#storedBytes > storedBytes)
      throw new TarDamaged(`has a sparse file with more data than its length: ${MEND}`);
    for (const [i, segment] of this.#segments.entries()) {
      segment.from += from;
      if (i % PAUSE_AFTER === 0) await pause.ifDue();
    }
    return this.#segments;
  }
}

/** `take` reads the next bytes of the tar. */
export async function readOldSparse(
  map: SparseMap,
  sparse: OldSparse,
  take: (length: number) => Promise<Buffer>,
): Promise<void> {
  map.addAll(sparse.parts);
  for (let more = sparse.hasMore; more; ) {
    const next = parseMoreSparse(await take(TAR_BLOCK_BYTES));
    map.addAll(next.parts);
    more = next.hasMore;
  }
}

/** Format 1.0: lines of numbers before the contents, padded to a whole block. The first is the number of parts. */
export async function readSparseInContents(
  map: SparseMap,
  storedBytes: number,
  take: (length: number) => Promise<Buffer>,
  pause: Pause,
): Promise<void> {
  let wanted: number | undefined;
  const numbers = new Numbers(NEWLINE, (number) => {
    if (wanted === undefined) {
      if (!(Number.isSafeInteger(number) && number <= PARTS_LIMIT))
        throw new TarDamaged('has a sparse file of too many parts: make it without --sparse');
      wanted = 2 * number;
    } else if (wanted > 0) {
      wanted--;
      map.add(number);
    }
  });
  for (let left = storedBytes; wanted !== 0; left -= TAR_BLOCK_BYTES) {
    if (left < TAR_BLOCK_BYTES) throw new TarDamaged(`has a sparse file whose map does not end: ${MEND}`);
    numbers.read(await take(TAR_BLOCK_BYTES));
    await pause.ifDue();
  }
}

/** Formats 0.0 and 0.1. False if the file is not sparse. */
export async function readSparseInPax(
  map: SparseMap,
  pax: readonly PaxRecord[],
  pause: Pause,
): Promise<boolean> {
  const text = pax.findLast(({ key }) => key === 'GNU.sparse.map')?.value;
  if (text !== undefined) {
    const numbers = new Numbers(COMMA, (number) => map.add(number));
    for (let at = 0; at < text.length; at += PIECE_BYTES) {
      numbers.read(text.subarray(at, at + PIECE_BYTES));
      await pause.ifDue();
    }
    numbers.end();
    return true;
  }
  let isSparse = false;
  for (const { key, value } of pax) {
    if (key !== 'GNU.sparse.offset' && key !== 'GNU.sparse.numbytes') continue;
    isSparse = true;
    const numbers = new Numbers(COMMA, (number) => map.add(number));
    numbers.read(value);
    numbers.end();
  }
  return isSparse;
}

/** Decimal numbers out of pieces of bytes: a string for each would take far more memory. NaN for what is none. */
class Numbers {
  readonly #separator: number;
  readonly #onNumber: (number: number) => void;
  #value = 0;
  #length = 0;

  constructor(separator: number, onNumber: (number: number) => void) {
    this.#separator = separator;
    this.#onNumber = onNumber;
  }

  read(bytes: Buffer): void {
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i] as number;
      if (byte === this.#separator) {
        this.#tell();
        continue;
      }
      this.#value = byte >= ZERO && byte <= NINE ? this.#value * 10 + (byte - ZERO) : Number.NaN;
      this.#length++;
    }
  }

  end(): void {
    if (this.#length > 0) this.#tell();
  }

  #tell(): void {
    const number = this.#length === 0 ? Number.NaN : this.#value;
    this.#value = 0;
    this.#length = 0;
    this.#onNumber(number);
  }
}
