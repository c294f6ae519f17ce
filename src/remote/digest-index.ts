// Finds chunks of an image by their digests: a hash table of numbers, as a map with a text for each chunk takes 200
// bytes of each, and holds the event loop for seconds.

import { Pause } from '../system/pause.js';
import type { ChunkList } from './chunk-list.js';
import type { ChunkSet } from './chunk-set.js';

/** The end of a chain. Chunks are kept one higher, so that new tables are empty. */
const NONE = 0;

export class DigestIndex {
  readonly #list: ChunkList;
  /** The first chunk of each chain, by the first bits of its digest. */
  readonly #firsts: Uint32Array;
  /** The chunk after each in its chain. */
  readonly #next: Uint32Array;

  static async of(chunks: ChunkSet): Promise<DigestIndex> {
    const index = new DigestIndex(chunks.list, chunks.size);
    // The kernel allocates a page at its first write. Digests go anywhere, so the first few chunks would hold the event
    // loop until all pages are there.
    const firsts = index.#firsts;
    await new Pause().inRanges(0, firsts.length, (first, end) => void firsts.fill(NONE, first, end));
    await chunks.each((chunk) => index.#add(chunk));
    return index;
  }

  private constructor(list: ChunkList, size: number) {
    this.#list = list;
    this.#firsts = new Uint32Array(2 ** Math.ceil(Math.log2(size + 1)));
    this.#next = new Uint32Array(list.count);
  }

  has(sha256: Buffer): boolean {
    for (
      let at = this.#firsts[this.#chainOf(sha256.readUInt32BE(0))] as number;
      at !== NONE;
      at = this.#after(at)
    )
      if (this.#isOf(at, sha256)) return true;
    return false;
  }

  /**
   * The chunks with this digest, each of which leaves the index. One by one, so that the caller can let the event loop
   * go on: millions of chunks can be the same.
   */
  *take(sha256: Buffer): Iterable<number> {
    const chain = this.#chainOf(sha256.readUInt32BE(0));
    let before = NONE;
    for (let at = this.#firsts[chain] as number; at !== NONE; ) {
      const next = this.#after(at);
      if (!this.#isOf(at, sha256)) before = at;
      else {
        if (before === NONE) this.#firsts[chain] = next;
        else this.#next[before - 1] = next;
        yield at - 1;
      }
      at = next;
    }
  }

  #add(chunk: number): void {
    const chain = this.#chainOf(this.#list.digestStart(chunk));
    this.#next[chunk] = this.#firsts[chain] as number;
    this.#firsts[chain] = chunk + 1;
  }

  #after(at: number): number {
    return this.#next[at - 1] as number;
  }

  #isOf(at: number, sha256: Buffer): boolean {
    return (
      this.#list.digestStart(at - 1) === sha256.readUInt32BE(0) && this.#list.sha256(at - 1).equals(sha256)
    );
  }

  #chainOf(digestStart: number): number {
    return digestStart & (this.#firsts.length - 1);
  }
}
