// Reads the small files of a tree, many in one call.
import { native } from '../../addon/native.js';
import { type FileContent, type FileNode, readContent } from '../tree/file-tree.js';
import { SCAN_ABOVE_BYTES } from './data-runs.js';
import { BLOCK_BYTES } from './layout.js';
import type { PlannedFile } from './tree-plan.js';

/** How many small files to read at once: whole files, so one more may exceed the bytes. */
const BATCH = 64;
const BATCH_BYTES = 1024 * 1024;

/** The files from `start` on that are read and written together. */
export function batchFrom(files: readonly PlannedFile[], start: number): PlannedFile[] {
  const batch: PlannedFile[] = [];
  for (let bytes = 0; batch.length < BATCH && bytes < BATCH_BYTES; ) {
    const file = files[start + batch.length];
    if (file === undefined) break;
    batch.push(file);
    if (isSmall(file)) bytes += file.node.content.sizeBytes;
  }
  return batch;
}

function isSmall(file: PlannedFile): file is PlannedFile & { readonly node: FileNode } {
  return file.node.kind === 'file' && file.node.content.sizeBytes <= SCAN_ABOVE_BYTES;
}

/** The blocks of each small file, with the last block zero-padded. */
export async function readSmallFiles(files: readonly PlannedFile[]): Promise<(Buffer | undefined)[]> {
  const contents = files.map((file) => (isSmall(file) ? file.node.content : undefined));
  const own = contents.filter((content) => content?.file !== undefined) as FileContent[];
  const read = new Map<FileContent, Buffer>();
  for (const [i, bytes] of (await readOwnFiles(own)).entries()) {
    const content = own[i] as FileContent;
    if (bytes === undefined) throw content.endedEarly();
    read.set(content, bytes);
  }
  return Promise.all(
    contents.map(async (content) => {
      if (content === undefined) return undefined;
      const blocks = Buffer.alloc(Math.ceil(content.sizeBytes / BLOCK_BYTES) * BLOCK_BYTES);
      const bytes = read.get(content);
      if (bytes !== undefined) bytes.copy(blocks);
      else if (content.segments.length > 0)
        await content.open((source) => readContent(content, source, 0, blocks));
      return blocks;
    }),
  );
}

/** Reads them in one call. */
async function readOwnFiles(contents: readonly FileContent[]): Promise<(Buffer | undefined)[]> {
  if (contents.length === 0) return [];
  const files = contents.map(({ file }) => file);
  const numbers = contents.flatMap(({ sizeBytes }, i) => [BigInt(sizeBytes), files[i]?.inode ?? 0n]);
  const paths = files.map((file) => file?.path ?? Buffer.alloc(0));
  return native().readSmallFiles(paths, BigUint64Array.from(numbers));
}
