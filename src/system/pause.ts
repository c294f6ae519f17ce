// Lets the event loop go on within long loops.
import { setImmediate as nextTurn } from 'node:timers/promises';

/** The event loop is not held for longer. */
const HELD_MS = 2;
/** Rounds of a short loop that take well under a millisecond. */
const RANGE = 2048;
/** Few, since each of many connections may have 2 MiB waiting: all go on in the same turn of the event loop. */
const PIECES_BYTES = 64 * 1024;

export class Pause {
  readonly #checkAborted: () => void;
  #since = performance.now();

  constructor(checkAborted: () => void = () => {}) {
    this.#checkAborted = checkAborted;
  }

  /** Whether to {@link take} one now. For loops of which each round is so short that a promise would cost more. */
  get isDue(): boolean {
    return performance.now() - this.#since > HELD_MS;
  }

  async take(): Promise<void> {
    await nextTurn();
    this.#checkAborted();
    this.#since = performance.now();
  }

  /** To be called about once in a millisecond of work. */
  async ifDue(): Promise<void> {
    if (this.isDue) await this.take();
  }

  /** Does the rounds from `first` up to `end`, a range of them at a time. */
  async inRanges(first: number, end: number, work: (first: number, end: number) => void): Promise<void> {
    for (let from = first; from < end; from += RANGE) {
      work(from, Math.min(end, from + RANGE));
      if (this.isDue) await this.take();
    }
  }
}

/**
 * The same pieces, with a pause after so many bytes: pieces that are in memory already come without one. Each may be
 * overwritten when the next is asked for.
 */
export async function* withPauses(
  pieces: Iterable<Buffer> | AsyncIterable<Buffer>,
): AsyncGenerator<Buffer, void, undefined> {
  let bytes = 0;
  for await (const piece of pieces) {
    if (bytes >= PIECES_BYTES) {
      await nextTurn();
      bytes = 0;
    }
    bytes += piece.length;
    yield piece;
  }
}
