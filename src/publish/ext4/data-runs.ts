// Finds the blocks of a file that are not all zeros. Only those get blocks in the image, so the image does not depend
// on how the source filesystem stores holes.

import { isZeroBlock } from '../../image/zero-block.js';
import { type FileContent, readContent, type Segment } from '../tree/file-tree.js';
import { BLOCK_BYTES } from './layout.js';

/** A run of consecutive blocks of a file. */
export interface BlockRun {
  readonly first: number;
  readonly count: number;
}

/** Larger files are scanned before the filesystem is made. Otherwise their holes would make it far too large. */
export const SCAN_ABOVE_BYTES = 1024 * 1024;

const CHUNK_BLOCKS = 256;

/** Reads the file once. */
export function runsOf(content: FileContent): Promise<BlockRun[]> {
  return content.open(async (source) => {
    const runs: BlockRun[] = [];
    const chunk = Buffer.allocUnsafe(CHUNK_BLOCKS * BLOCK_BYTES);
    for (const span of spansOf(content.segments)) {
      for (let done = 0; done < span.count; done += CHUNK_BLOCKS) {
        const count = Math.min(CHUNK_BLOCKS, span.count - done);
        const part = chunk.subarray(0, count * BLOCK_BYTES);
        await readContent(content, source, (span.first + done) * BLOCK_BYTES, part);
        addRuns(runs, part, span.first + done);
      }
    }
    return runs;
  });
}

/** Adds the runs of whole blocks, where the first one is block `first` of the file. */
export function addRuns(runs: BlockRun[], blocks: Buffer, first: number): void {
  for (let at = 0; at < blocks.length; at += BLOCK_BYTES) {
    if (isZeroBlock(blocks.subarray(at, at + BLOCK_BYTES))) continue;
    const block = first + at / BLOCK_BYTES;
    const last = runs.at(-1);
    if (last !== undefined && last.first + last.count === block)
      runs[runs.length - 1] = { first: last.first, count: last.count + 1 };
    else runs.push({ first: block, count: 1 });
  }
}

/** The blocks that the segments touch, one run at a time. Two segments may share a block. */
function* spansOf(segments: readonly Segment[]): Iterable<BlockRun> {
  let last: BlockRun | undefined;
  for (const { at, length } of segments) {
    if (length === 0) continue;
    const first = Math.floor(at / BLOCK_BYTES);
    const end = Math.ceil((at + length) / BLOCK_BYTES);
    if (last !== undefined && last.first + last.count >= first) {
      last = { first: last.first, count: Math.max(last.count, end - last.first) };
      continue;
    }
    if (last !== undefined) yield last;
    last = { first, count: end - first };
  }
  if (last !== undefined) yield last;
}
