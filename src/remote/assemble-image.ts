// Puts images of an artifact together in a folder: what an interrupted pull has written, what local templates have, and
// the rest from the registry. An image is that of a disk or of a VM's memory.

import { constants as files } from 'node:fs';
import { chmod } from 'node:fs/promises';
import { join } from 'node:path';
import { native } from '../addon/native.js';
import type { Template } from '../catalog/template.js';
import { isMissing } from '../system/is-missing.js';
import { openOfMode } from '../system/make-files.js';
import { makeFolders } from '../system/make-folders.js';
import { Pause } from '../system/pause.js';
import type { Task } from '../system/task.js';
import type { Layer } from './artifact.js';
import type { BlobReader } from './blob-reader.js';
import { Buffers } from './buffers.js';
import type { ChunkList } from './chunk-list.js';
import { ChunkSet } from './chunk-set.js';
import { type ChunkedFile, fetchLists } from './chunked-file.js';
import { withZstd } from './decompressor.js';
import { FETCHED_BYTES, fetchPack } from './fetch-pack.js';
import type { KnownChunks } from './known-chunks.js';
import { type Assembly, copyFromOthers, keepWritten, reuseChunks } from './local-chunks.js';
import type { Pace } from './pace.js';
import { requireSpace } from './space.js';
import type { TransferProgress } from './transfer-options.js';

/** An image that is wanted. */
interface WantedImage {
  /** Its name in the folder. */
  readonly name: string;
  readonly chunked: ChunkedFile;
  /** Templates that may have chunks of it, in the order in which they are tried, by what is missing at that moment. */
  readonly templates: ((missingBytes: () => number) => AsyncIterable<Template>) | undefined;
}

interface AssemblyContext {
  readonly reader: BlobReader;
  readonly pace: Pace;
  readonly known: KnownChunks;
  readonly onProgress: ((progress: TransferProgress) => void) | undefined;
}

interface Assembled {
  /** The list of each image. */
  readonly lists: readonly ChunkList[];
  /** Bytes of the images that were not fetched. */
  readonly reusedBytes: number;
}

/** Packs at once, each with a buffer. What Node reads from sockets takes four times as much, until it is collected. */
const AT_ONCE = 4;

/** Writes the images into `folder`. Their chunks are verified, each image as a whole is not. */
export async function assembleImages(
  task: Task,
  images: readonly WantedImage[],
  folder: string,
  context: AssemblyContext,
): Promise<Assembled> {
  const files = images.map(({ chunked }) => chunked);
  const lists = await fetchLists(task, files, context.reader);
  const bytesTotal = lists.reduce((sum, { dataBytes }) => sum + dataBytes, 0);
  const done = { reusedBytes: 0, fetchedBytes: 0 };
  const count = (step: 'reuse' | 'download', bytes: number) => {
    done[step === 'reuse' ? 'reusedBytes' : 'fetchedBytes'] += bytes;
    const { reusedBytes, fetchedBytes } = done;
    context.onProgress?.({ step, bytesDone: reusedBytes + fetchedBytes, bytesTotal, reusedBytes });
  };
  await makeFolders(folder, 0o700);
  const assemblies: Assembly[] = [];
  try {
    for (const [i, { name }] of images.entries()) {
      const assembly = await openAssembly(join(folder, name), lists[i] as ChunkList);
      assemblies.push(assembly);
      done.reusedBytes += await continueFrom(task, assembly);
    }
    // A disk that is too full is noticed before anything is reserved: to reserve nearly all of it would disturb others.
    await requireSpace(task, folder, await missingBytes(assemblies));
    await withSpace(assemblies, async () => {
      for (const [i, { templates }] of images.entries())
        if (templates !== undefined)
          await reuseChunks(task, assemblies[i] as Assembly, templates, context.known, (bytes) =>
            count('reuse', bytes),
          );
      for (const [i, { chunked }] of images.entries()) {
        const assembly = assemblies[i] as Assembly;
        const others = assemblies.filter((each) => each !== assembly);
        await copyFromOthers(task, assembly, others, (bytes) => count('reuse', bytes));
        await fetchMissing(task, chunked.packs, assembly, context, (bytes) => count('download', bytes));
      }
    });
    return { lists, reusedBytes: done.reusedBytes };
  } finally {
    for (const { file } of assemblies) await file.close();
  }
}

async function openAssembly(path: string, list: ChunkList): Promise<Assembly> {
  // A pull that was killed just before its end has made it read-only.
  if (!(await isMissing(path))) await chmod(path, 0o600);
  const missing = await ChunkSet.ofData(list);
  return { path, file: await openOfMode(path, files.O_RDWR | files.O_CREAT), list, missing };
}

/** Returns the bytes that are there already. */
async function continueFrom(task: Task, assembly: Assembly): Promise<number> {
  const { path, file, list, missing } = assembly;
  const isNew = (await file.stat()).size === 0;
  await file.truncate(list.sizeBytes);
  if (isNew) return 0;
  // Zeros are neither fetched nor read: what a damaged disk has there would stay.
  await native().giveBackRanges(file.fd, path, between(await rangesOf(missing), list.sizeBytes));
  return keepWritten(task, assembly);
}

async function fetchMissing(
  task: Task,
  layers: readonly Layer[],
  { path, file, list, missing }: Assembly,
  { reader, pace }: AssemblyContext,
  onWritten: (bytes: number) => void,
): Promise<void> {
  // In their order, so that the image is written nearly from its start to its end, and has few extents.
  const packs = list.packs.map((pack, i) => ({ pack, layer: layers[i] as Layer, bytes: 0 }));
  const pause = new Pause();
  for (const each of packs)
    await pause.inRanges(each.pack.first, each.pack.end, (first, end) => {
      for (let chunk = first; chunk < end; chunk++)
        if (missing.has(chunk)) each.bytes += list.frameBytes(chunk);
    });
  const wanted = packs.filter(({ bytes }) => bytes > 0);
  const image = { fd: file.fd, path };
  const buffers = new Buffers(FETCHED_BYTES);
  const fetch = (each: Task, { pack, layer }: (typeof wanted)[number]) =>
    fetchPack(each, reader, pace, { list, pack, layer, wanted: missing, image, buffers, onWritten });
  await withZstd(() => pace.forEach(task, wanted, fetch, AT_ONCE));
}

async function missingBytes(assemblies: readonly Assembly[]): Promise<number> {
  let bytes = 0;
  for (const { missing, list } of assemblies)
    await missing.each((chunk) => {
      bytes += list.length(chunk);
    });
  return bytes;
}

/**
 * Reserves the blocks of what is missing, so that nobody else can take them while it is fetched. That puts it into few
 * extents, too. What is still missing when `work` fails is given back.
 */
async function withSpace(assemblies: readonly Assembly[], work: () => Promise<void>): Promise<void> {
  try {
    for (const { file, path, missing } of assemblies)
      await native().reserveRanges(file.fd, path, await rangesOf(missing));
    await work();
  } catch (error) {
    for (const { file, path, missing } of assemblies)
      await native()
        .giveBackRanges(file.fd, path, await rangesOf(missing))
        .catch(() => {}); // the first error tells more
    throw error;
  }
}

/** The start and the end of each run of chunks. */
async function rangesOf(chunks: ChunkSet): Promise<Float64Array> {
  const { list } = chunks;
  const ranges = new Float64Array(2 * chunks.size);
  let count = 0;
  await chunks.each((chunk) => {
    if (count > 0 && ranges[count - 1] === list.offset(chunk)) count--;
    else ranges[count++] = list.offset(chunk);
    ranges[count++] = list.offset(chunk + 1);
  });
  return ranges.subarray(0, count);
}

/** What these ranges leave of a file. */
function between(ranges: Float64Array, sizeBytes: number): Float64Array {
  const bounds = new Float64Array(ranges.length + 2);
  bounds.set(ranges, 1);
  bounds[bounds.length - 1] = sizeBytes;
  const isEmptyAtStart = ranges[0] === 0;
  const isEmptyAtEnd = ranges.at(-1) === sizeBytes;
  return bounds.subarray(isEmptyAtStart ? 2 : 0, bounds.length - (isEmptyAtEnd ? 2 : 0));
}
