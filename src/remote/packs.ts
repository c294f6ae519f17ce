// Which chunks go into one blob. Packs end by content as well, so that a change in one leaves the others unchanged.
import { Pause } from '../system/pause.js';
import type { ChunkList } from './chunk-list.js';

const MiB = 1024 * 1024;

/** Bytes of data in a pack, before compression. */
const SHORTEST = 4 * MiB;
const AVERAGE = 8 * MiB;
const LONGEST = 12 * MiB;

/** Registries limit manifests to 4 MiB, and each request costs time. Packs of larger images are larger instead. */
const PACKS_ABOUT = 2500;

/** What the packs of all images may take of a manifest. */
const MANIFEST_ROOM = 3 * MiB;

/**
 * Where the packs of several images end. They are larger than usual if the manifest would be too long otherwise.
 * `layerBytes`: what each pack of an image takes of it.
 */
export async function packEndsOfAll(
  images: readonly ChunkList[],
  layerBytes: readonly number[],
): Promise<number[][]> {
  for (let times = 1; ; times *= 2) {
    const ends: number[][] = [];
    for (const image of images) ends.push(await packEnds(image, times));
    const bytes = ends.reduce((sum, each, i) => sum + each.length * (layerBytes[i] as number), 0);
    if (bytes <= MANIFEST_ROOM) return ends;
  }
}

/** Where each pack ends, as an index into the chunks. `times` makes packs so many times as large as usual. */
export async function packEnds(chunks: ChunkList, times = 1): Promise<number[]> {
  const scale = scaleFor(chunks.dataBytes) * times;
  const shortest = SHORTEST * scale;
  const longest = LONGEST * scale;
  // With chunks of 128 KiB, packs have AVERAGE bytes on average.
  const endsBelow = 2 ** 32 * ((128 * 1024) / ((AVERAGE - SHORTEST) * scale));
  const ends: number[] = [];
  let bytes = 0;
  const add = (i: number) => {
    const length = chunks.length(i);
    // It must fit in.
    if (bytes > 0 && bytes + length > longest) {
      ends.push(i);
      bytes = 0;
    }
    bytes += length;
    if (bytes >= shortest && chunks.digestStart(i) < endsBelow) {
      ends.push(i + 1);
      bytes = 0;
    }
  };
  await new Pause().inRanges(0, chunks.count, (first, end) => {
    for (let i = first; i < end; i++) if (!chunks.isZero(i)) add(i);
  });
  if (chunks.count > 0 && ends.at(-1) !== chunks.count) ends.push(chunks.count);
  return ends;
}

/** A power of two, so that an image that grows a little keeps its packs. */
function scaleFor(dataBytes: number): number {
  let scale = 1;
  while (dataBytes / (AVERAGE * scale) > PACKS_ABOUT) scale *= 2;
  return scale;
}
