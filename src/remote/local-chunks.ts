// Takes chunks from images that this host has already. They are copied and hashed on the way: reflinks of hundreds of
// ranges would be hundreds of extents in every clone.

import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import type { Template } from '../catalog/template.js';
import { readFully } from '../image/read-bytes.js';
import { writeFully } from '../image/write-bytes.js';
import { BLOCK_BYTES, isZeroBlock } from '../image/zero-block.js';
import { Pause } from '../system/pause.js';
import type { Task } from '../system/task.js';
import { CHUNK_LIMIT, type ChunkList } from './chunk-list.js';
import type { ChunkSet } from './chunk-set.js';
import { DigestIndex } from './digest-index.js';
import type { KnownChunks } from './known-chunks.js';

/** The image that is being put together. */
export interface Assembly {
  readonly path: string;
  readonly file: FileHandle;
  readonly list: ChunkList;
  /** Chunks of data that are still to be written. */
  readonly missing: ChunkSet;
}

/** Chunks that an earlier, interrupted pull has written. Returns their bytes. */
export async function keepWritten(task: Task, { file, list, missing }: Assembly): Promise<number> {
  const buffer = Buffer.allocUnsafeSlow(CHUNK_LIMIT);
  let bytes = 0;
  for (let chunk = 0; chunk < list.count; chunk++) {
    if (!missing.has(chunk)) continue;
    task.checkAborted();
    const content = await readChunk(file, buffer, list.offset(chunk), list.length(chunk));
    if (
      content === undefined ||
      isZeroBlock(content.subarray(0, BLOCK_BYTES)) ||
      !isChunk(content, list, chunk)
    )
      continue;
    missing.delete(chunk);
    bytes += content.length;
  }
  return bytes;
}

/** Copies what the templates have. `onReused` is told of bytes. */
export async function reuseChunks(
  task: Task,
  assembly: Assembly,
  templates: (missingBytes: () => number) => AsyncIterable<Template>,
  known: KnownChunks,
  onReused: (bytes: number) => void,
): Promise<void> {
  const { list, missing } = assembly;
  if (missing.size === 0) return;
  const wanted = await DigestIndex.of(missing);
  let missingBytes = 0;
  await missing.each((chunk) => {
    missingBytes += list.length(chunk);
  });
  for await (const template of templates(() => missingBytes)) {
    if (missing.size === 0) return;
    task.checkAborted();
    for await (const { digest, bytes } of wantedChunks(task, template, wanted, known)) {
      await place(assembly, wanted, digest, bytes, (length) => {
        missingBytes -= length;
        onReused(length);
      });
    }
  }
}

/** Copies what other images of the same pull have by now. `onReused` is told of bytes. */
export async function copyFromOthers(
  task: Task,
  assembly: Assembly,
  others: readonly Assembly[],
  onReused: (bytes: number) => void,
): Promise<void> {
  if (assembly.missing.size === 0 || others.length === 0) return;
  const wanted = await DigestIndex.of(assembly.missing);
  const buffer = Buffer.allocUnsafeSlow(CHUNK_LIMIT);
  for (const { file, list, missing } of others) {
    for await (const i of chunksIn(task, list, wanted)) {
      if (missing.has(i)) continue;
      const bytes = await readChunk(file, buffer, list.offset(i), list.length(i));
      if (bytes !== undefined && isChunk(bytes, list, i))
        await place(assembly, wanted, list.sha256(i), bytes, onReused);
    }
  }
}

async function place(
  { file, list, missing }: Assembly,
  wanted: DigestIndex,
  digest: Buffer,
  bytes: Buffer,
  onPlaced: (bytes: number) => void,
): Promise<void> {
  for (const chunk of wanted.take(digest)) {
    if (list.length(chunk) !== bytes.length) continue;
    await writeFully(file, bytes, list.offset(chunk));
    missing.delete(chunk);
    onPlaced(bytes.length);
  }
}

/** The chunks of a list that are wanted. */
async function* chunksIn(
  task: Task,
  list: ChunkList,
  wanted: DigestIndex,
): AsyncGenerator<number, void, undefined> {
  const pause = new Pause(() => task.checkAborted());
  for (let i = 0; i < list.count; i++) {
    if (pause.isDue) await pause.take();
    if (list.isZero(i) || !wanted.has(list.sha256(i))) continue;
    task.checkAborted();
    yield i;
  }
}

/** What a template has of the wanted chunks. `bytes` are overwritten when the next is asked for. */
async function* wantedChunks(
  task: Task,
  { path, sha256, identity }: Template,
  wanted: DigestIndex,
  known: KnownChunks,
): AsyncGenerator<{ readonly digest: Buffer; readonly bytes: Buffer }, void, undefined> {
  let image: FileHandle | undefined;
  let damaged = 0;
  try {
    const content = { sha256, sizeBytes: identity.sizeBytes };
    let source = await known.get(sha256, identity.sizeBytes);
    if (source === undefined) {
      image = await open(path, 'r');
      const cut = await known.listOf(task, image, content, () => {});
      if (cut.sha256 !== sha256) warn(path, 'its digest is another than before');
      source = cut.list;
    }
    let buffer: Buffer | undefined;
    for await (const i of chunksIn(task, source, wanted)) {
      // Most templates of a host have nothing that is wanted.
      image ??= await open(path, 'r');
      buffer ??= Buffer.allocUnsafeSlow(CHUNK_LIMIT);
      const bytes = await readChunk(image, buffer, source.offset(i), source.length(i));
      if (bytes === undefined || !isChunk(bytes, source, i)) {
        damaged++;
        continue;
      }
      yield { digest: source.sha256(i), bytes };
    }
    if (damaged > 0) warn(path, `${damaged} chunks of it have other digests than before`);
  } catch (error) {
    task.checkAborted();
    warn(path, (error as Error).message);
  } finally {
    await image?.close();
  }
}

/** No failure of the pull: what a template cannot give is fetched. */
function warn(path: string, why: string): void {
  process.emitWarning(`template ${path} is not fully reused by a pull: ${why}; check it with verify()`, {
    code: 'MICROVM_ROOTFS_TEMPLATE_DAMAGED',
  });
}

function isChunk(content: Buffer, list: ChunkList, chunk: number): boolean {
  return createHash('sha256').update(content).digest().equals(list.sha256(chunk));
}

/** Into a buffer that is used again: one for each chunk would pile up before the garbage collector runs. */
async function readChunk(
  file: FileHandle,
  buffer: Buffer,
  offset: number,
  length: number,
): Promise<Buffer | undefined> {
  const content = buffer.subarray(0, length);
  return (await readFully(file, content, offset)) === length ? content : undefined;
}
