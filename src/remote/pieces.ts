// The bytes of a blob in pieces. They are not joined, and not hashed in one go: to do that to a pack of many MiB would
// hold the event loop.

import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Blob } from './blob-reader.js';

/** Hashed in well under a millisecond. */
const TURN_BYTES = 512 * 1024;

/** Cuts bytes that are in one buffer, for {@link blobOfPieces}. */
export function* piecesOf(bytes: Buffer): Iterable<Buffer> {
  for (let at = 0; at < bytes.length; at += TURN_BYTES) yield bytes.subarray(at, at + TURN_BYTES);
}

export async function blobOfPieces(pieces: Iterable<Buffer> | AsyncIterable<Buffer>): Promise<Blob> {
  const hash = createHash('sha256');
  let size = 0;
  let inTurn = 0;
  for await (const piece of pieces) {
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
