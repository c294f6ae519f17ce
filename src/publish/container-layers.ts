// Makes layers of a fetched container image such that umoci can read them: it knows neither zstd nor xz, and believes
// their media types.

import { rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { hasCode, RootfsError } from '../system/errors.js';
import { isMissing } from '../system/is-missing.js';
import { isSha256Digest } from '../system/sha256.js';
import type { Task } from '../system/task.js';
import { damagedLayer, type LayerFile, layersTooLarge } from './count-layers.js';
import { decompress } from './decompress.js';
import { blobPath, type FetchedImage, type Json, writeLayers } from './fetched-layout.js';
import { type Compression, formatOf, isCompression } from './image-format.js';
import type { PublishLimits } from './publish-options.js';

interface LayersRequest {
  readonly source: string;
  readonly layout: string;
  readonly workFolder: string;
  readonly limits: Required<PublishLimits>;
}

const PLAIN_LAYER = 'application/vnd.oci.image.layer.v1.tar';
const GZIP_LAYER = `${PLAIN_LAYER}+gzip`;
const LAYER = /^application\/vnd\.(oci\.image\.layer|docker\.image\.rootfs)\./;

/** Returns the files of the layers. Rejects with `SOURCE_TOO_LARGE`, or `ARTIFACT_INVALID` if a layer is damaged. */
export async function prepareLayers(
  task: Task,
  { manifest, config }: FetchedImage,
  request: LayersRequest,
): Promise<readonly LayerFile[]> {
  const layers = new Layers(task, request);
  // Damaged is what does not have the shape of a manifest as well.
  const plain = await layers.prepare(listOf(manifest.layers), listOf(config.rootfs?.diff_ids));
  await writeLayers(request.layout, manifest, plain);
  return layers.files;
}

class Layers {
  readonly #task: Task;
  readonly #request: LayersRequest;
  readonly files: LayerFile[] = [];
  /** By digest: a layer may be listed more than once. */
  readonly #decompressed = new Map<string, Json>();
  #decompressedBytes = 0;

  constructor(task: Task, request: LayersRequest) {
    this.#task = task;
    this.#request = request;
  }

  async prepare(layers: readonly Json[], diffIds: readonly Json[]): Promise<Json[]> {
    const plain: Json[] = [];
    for (const [i, layer] of layers.entries()) {
      // umoci refuses what is not a layer.
      const isLayer = LAYER.test(String(layer?.mediaType));
      plain.push(isLayer ? await this.#prepareLayer(layer, diffIds[i]) : layer);
    }
    return plain;
  }

  async #prepareLayer(layer: Json, diffId: Json): Promise<Json> {
    // umoci panics without it.
    if (!isSha256Digest(diffId))
      throw this.#wrong(`is not a container image: its config has no SHA-256 of layer ${layer.digest}`);
    const { layout } = this.#request;
    const known = this.#decompressed.get(layer.digest);
    const plain = known ?? (await this.#plainOf(layer, diffId));
    this.#decompressed.set(layer.digest, plain);
    const path = blobPath(layout, plain.digest);
    this.files.push({ path, isGzip: (await formatOf(path)) === 'gzip' });
    return plain;
  }

  /** Named by the digest that the config promises: umoci checks it. */
  async #plainOf(layer: Json, diffId: Json): Promise<Json> {
    const { layout, workFolder } = this.#request;
    const path = blobPath(layout, layer.digest);
    // skopeo leaves out a layer with `urls`.
    if (await isMissing(path))
      throw this.#wrong(
        `does not include layer ${layer.digest} (a foreign layer): push the image with all its layers`,
      );
    if (String(layer.mediaType).endsWith('+encrypted'))
      throw this.#wrong(
        'is encrypted: publish oci:DIR after skopeo copy --decryption-key KEY docker://… oci:DIR',
      );
    const format = await formatOf(path);
    if (format === 'gzip') return { ...layer, mediaType: GZIP_LAYER };
    if (!isCompression(format)) return { ...layer, mediaType: PLAIN_LAYER };
    const dest = join(workFolder, 'layer');
    await this.#decompress(format, path, dest);
    await rm(path);
    await rename(dest, blobPath(layout, diffId));
    const { size } = await stat(blobPath(layout, diffId));
    this.#decompressedBytes += size;
    return { ...layer, mediaType: PLAIN_LAYER, digest: diffId, size };
  }

  #wrong(why: string): RootfsError {
    const { source } = this.#request;
    return new RootfsError('ARTIFACT_INVALID', `${source} ${why}`, { path: source });
  }

  async #decompress(format: Compression, path: string, dest: string): Promise<void> {
    const { source, limits } = this.#request;
    const maxBytes = limits.maxBytes - this.#decompressedBytes;
    const request = {
      format,
      path,
      source,
      dest,
      limits: { ...limits, maxBytes },
      sparse: { fillGaps: false },
    };
    try {
      await decompress(this.#task, request, () => {});
    } catch (error) {
      if (hasCode(error, 'IMAGE_INVALID')) throw damagedLayer(source, error.message, error);
      if (hasCode(error, 'SOURCE_TOO_LARGE') && /limits\.maxBytes/.test(error.message))
        throw layersTooLarge(source, limits.maxBytes);
      throw error;
    }
  }
}

function listOf(value: Json): readonly Json[] {
  return Array.isArray(value) ? value : [];
}
