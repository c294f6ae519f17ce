// Bytes in pieces, as they came. They are not joined, and not hashed in one go: to do that to a pack of many MiB would
// hold the event loop.

import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Blob } from './blob-reader.js';

/** To hash these takes about as long as to compress a chunk: well under a millisecond. */
const TURN_BYTES = 512 * 1024;

export class ByteQueue {
  readonly #pieces: Buffer[] = [];
  #next = 0;

  add(piece: Buffer): void {
    this.#pieces.push(piece);
  }

  /** The next `count` bytes, which must be there. */
  take(count: number): Buffer[] {
    const taken: Buffer[] = [];
    for (let left = count; left > 0; ) {
      const piece = this.#pieces[this.#next] as Buffer;
      taken.push(piece.subarray(0, left));
      if (piece.length > left) this.#pieces[this.#next] = piece.subarray(left);
      else this.#next++;
      left -= Math.min(left, piece.length);
    }
    return taken;
  }
}

/** Cuts bytes that are in one buffer, for {@link blobOfPieces}. */
export function* piecesOf(bytes: Buffer): Iterable<Buffer> {
  for (let at = 0; at < bytes.length; at += TURN_BYTES) yield bytes.subarray(at, at + TURN_BYTES);
}

export async function blobOfPieces(pieces: Iterable<Buffer>): Promise<Blob> {
  const hash = createHash('sha256');
  let size = 0;
  let inTurn = 0;
  for (const piece of pieces) {
    if (inTurn >= TURN_BYTES) {
      await nextTurn();
      inTurn = 0;
    }
    hash.update(piece);
    size += piece.length;
    inTurn += piece.length;
  }
  return { digest: `sha256:${hash.digest('hex')}`, size };
}
