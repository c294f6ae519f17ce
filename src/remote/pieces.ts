// The bytes of a blob in pieces. They are not joined, and not hashed in one go: to do that to a pack of many MiB would
// hold the event loop.

import { createHash } from 'node:crypto';
import { withPauses } from '../system/pause.js';
import type { Blob } from './blob-reader.js';

/** Hashed in well under a millisecond. */
const PIECE_BYTES = 512 * 1024;

/** Cuts bytes that are in one buffer, for {@link blobOfPieces}. */
export function* piecesOf(bytes: Buffer): Iterable<Buffer> {
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) yield bytes.subarray(at, at + PIECE_BYTES);
}

export async function blobOfPieces(pieces: Iterable<Buffer> | AsyncIterable<Buffer>): Promise<Blob> {
  const hash = createHash('sha256');
  let size = 0;
  for await (const piece of withPauses(pieces)) {
    hash.update(piece);
    size += piece.length;
  }
  return { digest: `sha256:${hash.digest('hex')}`, size };
}
