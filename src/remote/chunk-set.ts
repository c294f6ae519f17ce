// A set of chunks of an image: a byte for each chunk, where a Set takes 30, and holds the event loop as it grows.

import { Pause } from '../system/pause.js';
import type { ChunkList } from './chunk-list.js';

export class ChunkSet {
  readonly list: ChunkList;
  readonly #isIn: Uint8Array;
  #size = 0;

  /** All chunks of data. */
  static async ofData(list: ChunkList): Promise<ChunkSet> {
    const set = new ChunkSet(list);
    await new Pause().inRanges(0, list.count, (first, end) => {
      for (let i = first; i < end; i++) if (!list.isZero(i)) set.#add(i);
    });
    return set;
  }

  private constructor(list: ChunkList) {
    this.list = list;
    this.#isIn = new Uint8Array(list.count);
  }

  get size(): number {
    return this.#size;
  }

  has(chunk: number): boolean {
    return this.#isIn[chunk] === 1;
  }

  delete(chunk: number): void {
    if (!this.has(chunk)) return;
    this.#isIn[chunk] = 0;
    this.#size--;
  }

  #add(chunk: number): void {
    this.#isIn[chunk] = 1;
    this.#size++;
  }

  /** Ascending. */
  async each(work: (chunk: number) => void): Promise<void> {
    await new Pause().inRanges(0, this.list.count, (first, end) => {
      for (let chunk = first; chunk < end; chunk++) if (this.has(chunk)) work(chunk);
    });
  }
}
