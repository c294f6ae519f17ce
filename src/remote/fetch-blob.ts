// Fetches a whole blob that fits into memory: an index, or the manifest of a snapshot.

import { createHash } from 'node:crypto';
import type { Task } from '../system/task.js';
import { invalid, type Layer } from './artifact.js';
import { type BlobReader, wrongBlob } from './blob-reader.js';

/**
 * Wrong bytes are fetched once more, from the origin. Rejects with `DIGEST_MISMATCH`, `ARTIFACT_INVALID` for a blob of
 * another size than its manifest says, or the reader's codes.
 */
export async function fetchBlob(task: Task, reader: BlobReader, layer: Layer): Promise<Buffer> {
  for (const each of [reader, reader.ofOrigin()]) {
    // Piece by piece: to join or to hash an index of many MiB at once would hold the event loop.
    const content = Buffer.alloc(layer.size);
    const hash = createHash('sha256');
    let received = 0;
    let failure: unknown;
    try {
      for await (const part of each.read(task, layer, 0, layer.size)) {
        part.bytes.copy(content, part.start);
        hash.update(part.bytes);
        received += part.bytes.length;
      }
    } catch (error) {
      failure = error;
    }
    const isRight = `sha256:${hash.digest('hex')}` === layer.digest;
    if (isRight && received === layer.size) return content;
    if (isRight) throw invalid(`its manifest has a size of ${layer.size} for a blob of ${received} bytes`);
    if (failure !== undefined) throw failure;
  }
  throw wrongBlob(layer, new Error('it has another digest'));
}
