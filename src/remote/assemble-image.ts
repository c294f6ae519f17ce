// Puts the image of an artifact together in a folder: what an interrupted pull has written, what local templates have,
// and the rest from the registry.

import { constants as files } from 'node:fs';
import { chmod, mkdir, open, statfs } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import { TEMPLATE_ROOTFS_FILE } from '../catalog/catalog.js';
import type { Template } from '../catalog/templates.js';
import { RootfsError } from '../system/errors.js';
import { isMissing } from '../system/is-missing.js';
import type { Task } from '../system/task.js';
import { type Artifact, contentOf, INDEX_TYPE, invalid, type Layer, PACK_TYPE } from './artifact.js';
import type { BlobReader, ReadOptions } from './blob-reader.js';
import { ChunkList } from './chunk-list.js';
import { fetchBlob, fetchPacks, type LocatedPack } from './fetch-pack.js';
import { type KnownChunks, LIST_BYTES_LIMIT } from './known-chunks.js';
import { type Assembly, keepWritten, reuseChunks } from './local-chunks.js';
import type { Pace } from './retry.js';
import type { TransferProgress } from './transfer-options.js';

export interface Parts {
  readonly reader: BlobReader;
  readonly pace: Pace;
  readonly readOptions: ReadOptions;
  readonly known: KnownChunks;
  /** In the order in which they are tried. */
  readonly templates: () => Promise<readonly Template[]>;
  readonly onProgress: ((progress: TransferProgress) => void) | undefined;
}

export interface Assembled {
  readonly list: ChunkList;
  /** Bytes of the image that were not fetched. */
  readonly reusedBytes: number;
}

/** For packs that are being fetched. */
const MEMORY_BYTES = 32 * 1024 * 1024;
/** Of packs that are fetched and decompressed together: bytes on the wire, and in the image. */
const GROUP_LIMITS = { fetched: 8 * 1024 * 1024, written: 64 * 1024 * 1024 };

/** Writes `<folder>/rootfs.ext4`. Its chunks are verified, the image as a whole is not. */
export async function assembleImage(
  task: Task,
  artifact: Artifact,
  folder: string,
  parts: Parts,
): Promise<Assembled> {
  const list = await fetchList(task, artifact, parts);
  await mkdir(folder, { recursive: true, mode: 0o755 });
  const imagePath = join(folder, TEMPLATE_ROOTFS_FILE);
  // A pull that was killed just before its end has made it read-only.
  if (!(await isMissing(imagePath))) await chmod(imagePath, 0o600);
  const file = await open(imagePath, files.O_RDWR | files.O_CREAT, 0o600);
  try {
    const missing = new Set<number>();
    for (let i = 0; i < list.count; i++) if (!list.isZero(i)) missing.add(i);
    const assembly = { imagePath, file, list, missing };
    const isNew = (await file.stat()).size === 0;
    await file.truncate(list.sizeBytes);
    let reusedBytes = isNew ? 0 : await keepWritten(task, assembly);
    await requireSpace(folder, missing, list);
    const report = (step: 'reuse' | 'download', bytesDone: number) =>
      parts.onProgress?.({ step, bytesDone, bytesTotal: list.dataBytes, reusedBytes });
    await reuseChunks(task, assembly, await parts.templates(), parts.known, (bytes) => {
      reusedBytes += bytes;
      report('reuse', reusedBytes);
    });
    await fetchMissing(task, artifact, assembly, parts, (bytes) => report('download', reusedBytes + bytes));
    return { list, reusedBytes };
  } finally {
    await file.close();
  }
}

/** Rejects with `ARTIFACT_INVALID` for an index that does not fit the manifest. */
export async function fetchList(
  task: Task,
  artifact: Artifact,
  { reader, readOptions }: Pick<Parts, 'reader' | 'readOptions'>,
): Promise<ChunkList> {
  const indexes = artifact.layers.filter(({ mediaType }) => mediaType === INDEX_TYPE);
  const [index] = indexes;
  if (index === undefined || indexes.length > 1)
    throw invalid(`it has ${indexes.length} index layers, not one`);
  if (index.size > LIST_BYTES_LIMIT) throw invalid(`its index has ${index.size} bytes`);
  const list = ChunkList.parse(await fetchBlob(task, reader, index, readOptions));
  if (list.sizeBytes !== contentOf(artifact).sizeBytes)
    throw invalid('its index is of an image of another size');
  const packs = packsOf(artifact);
  if (list.packs.length !== packs.length || list.packs.some((pack, i) => pack.sizeBytes !== packs[i]?.size))
    throw invalid('its index does not fit its packs');
  return list;
}

export function packsOf({ layers }: Artifact): Layer[] {
  return layers.filter(({ mediaType }) => mediaType === PACK_TYPE);
}

async function fetchMissing(
  task: Task,
  artifact: Artifact,
  { imagePath, file, list, missing }: Assembly,
  { reader, pace, readOptions }: Parts,
  onFetched: (bytes: number) => void,
): Promise<void> {
  let fetched = 0;
  const layers = packsOf(artifact);
  // In their order, so that the image is written nearly from its start to its end, and has few extents.
  const packs = list.packs.map((pack, i) => ({ pack, layer: layers[i] as Layer }));
  const needed = packs.filter(({ pack }) => isMissingIn(missing, pack.first, pack.end));
  const groups = grouped(list, needed);
  const largest = Math.max(
    1,
    ...groups.map((group) => group.reduce((sum, { layer }) => sum + layer.size, 0)),
  );
  pace.limit(Math.floor(MEMORY_BYTES / largest));
  await pace.forEach(task, groups, (each, group) =>
    fetchPacks(
      each,
      reader,
      {
        list,
        packs: group,
        wanted: missing,
        image: { fd: file.fd, path: imagePath },
        onWritten: (bytes) => {
          fetched += bytes;
          onFetched(fetched);
        },
      },
      readOptions,
    ),
  );
}

/** Neighbours together, as far as {@link GROUP_LIMITS} allow it. */
function grouped(list: ChunkList, packs: readonly LocatedPack[]): LocatedPack[][] {
  const groups: LocatedPack[][] = [];
  let fetched = Number.POSITIVE_INFINITY;
  let written = 0;
  for (const each of packs) {
    const { pack, layer } = each;
    fetched += layer.size;
    written += list.offset(pack.end) - list.offset(pack.first);
    if (fetched > GROUP_LIMITS.fetched || written > GROUP_LIMITS.written) {
      groups.push([]);
      fetched = layer.size;
      written = list.offset(pack.end) - list.offset(pack.first);
    }
    groups.at(-1)?.push(each);
  }
  return groups;
}

function isMissingIn(missing: ReadonlySet<number>, first: number, end: number): boolean {
  for (let i = first; i < end; i++) if (missing.has(i)) return true;
  return false;
}

/** A full disk is noticed before the first byte is fetched. */
async function requireSpace(folder: string, missing: ReadonlySet<number>, list: ChunkList): Promise<void> {
  let needed = 0;
  for (const chunk of missing) needed += list.length(chunk);
  const { bavail, bsize } = await statfs(folder);
  if (bavail * bsize >= needed) return;
  throw new RootfsError(
    'ENOSPC',
    `the image needs ${needed} bytes more, and the file system of ${folder} has ${bavail * bsize}: make room`,
    { errno: -constants.errno.ENOSPC, path: folder },
  );
}
