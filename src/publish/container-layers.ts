// Decompresses the layers of a fetched container image and holds them to the limits, before umoci unpacks them. umoci
// has no limits of its own, and knows neither zstd nor xz.

import { open, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { hasCode, RootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';
import { decompress } from './decompress.js';
import { blobPath, type FetchedImage, type Json, writeManifest } from './fetched-layout.js';
import { type Compression, formatOf, isCompression } from './image-format.js';
import type { PublishLimits } from './publish-options.js';
import { readMembers, TarDamaged } from './tar/members.js';
import { TreeCount, tooLarge } from './tree/limits.js';

export interface LayersRequest {
  readonly source: string;
  readonly layout: string;
  readonly workFolder: string;
  readonly limits: Required<PublishLimits>;
}

const PLAIN_LAYER = 'application/vnd.oci.image.layer.v1.tar';
const LAYER = /^application\/vnd\.oci\.image\.layer\./;

/** How many members to read between turns of the event loop. */
const MEMBERS_AT_ONCE = 1000;

/** Rejects with `SOURCE_TOO_LARGE`, or `ARTIFACT_INVALID` if a layer is damaged. */
export async function prepareLayers(
  task: Task,
  { manifest, config }: FetchedImage,
  request: LayersRequest,
): Promise<void> {
  const layers = new Layers(task, request);
  // Damaged is what does not have the shape of a manifest as well.
  const plain = await layers.prepare(listOf(manifest.layers), listOf(config.rootfs?.diff_ids));
  await writeManifest(request.layout, { ...manifest, layers: plain });
}

class Layers {
  readonly #task: Task;
  readonly #request: LayersRequest;
  readonly #count: TreeCount;
  /** By digest: a layer may be listed more than once. */
  readonly #decompressed = new Map<string, Json>();
  #tarBytes = 0;
  #fileBytes = 0;

  constructor(task: Task, request: LayersRequest) {
    this.#task = task;
    this.#request = request;
    this.#count = new TreeCount(request.source, request.limits);
  }

  async prepare(layers: readonly Json[], diffIds: readonly Json[]): Promise<Json[]> {
    const plain: Json[] = [];
    for (const [i, layer] of layers.entries()) {
      // umoci refuses what is no layer.
      const isLayer = LAYER.test(String(layer?.mediaType));
      plain.push(isLayer ? await this.#prepareLayer(layer, diffIds[i]) : layer);
    }
    return plain;
  }

  async #prepareLayer(layer: Json, diffId: Json): Promise<Json> {
    const { layout } = this.#request;
    const known = this.#decompressed.get(layer.digest);
    const plain = known ?? (await this.#plainOf(layer, diffId));
    this.#decompressed.set(layer.digest, plain);
    await this.#countMembers(blobPath(layout, plain.digest));
    return plain;
  }

  /** Named by the digest that the config promises: umoci checks it. */
  async #plainOf(layer: Json, diffId: Json): Promise<Json> {
    const { layout, workFolder, source } = this.#request;
    const path = blobPath(layout, layer.digest);
    const format = await formatOf(path);
    if (!isCompression(format)) return layer;
    if (!/^sha256:[0-9a-f]{64}$/.test(String(diffId)))
      throw invalid(source, `is no container image: its config has no SHA-256 of layer ${layer.digest}`);
    const dest = join(workFolder, 'layer');
    await this.#decompress(format, path, dest);
    await rm(path);
    await rename(dest, blobPath(layout, diffId));
    const { size } = await stat(blobPath(layout, diffId));
    return { ...layer, mediaType: PLAIN_LAYER, digest: diffId, size };
  }

  async #decompress(format: Compression, path: string, dest: string): Promise<void> {
    const { source, limits } = this.#request;
    const maxBytes = limits.maxBytes - this.#tarBytes;
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
      if (hasCode(error, 'IMAGE_INVALID')) throw invalid(source, `has a damaged layer: ${error.message}`);
      if (hasCode(error, 'SOURCE_TOO_LARGE') && /limits\.maxBytes/.test(error.message))
        throw this.#tooLarge();
      throw error;
    }
  }

  /** Reads the headers alone. A sparse file may be far longer than the tar that it is in. */
  async #countMembers(path: string): Promise<void> {
    const { size } = await stat(path);
    this.#addBytes(size, 0);
    if (size === 0) return;
    const file = await open(path, 'r');
    try {
      let members = 0;
      for await (const member of readMembers(file, size, () => {})) {
        const names = member.path.toString('latin1').split('/');
        this.#count.add(names.filter((name) => name !== '' && name !== '.').length);
        this.#addBytes(0, member.sizeBytes);
        if (++members % MEMBERS_AT_ONCE !== 0) continue;
        this.#task.checkAborted();
        await nextTurn();
      }
    } catch (error) {
      if (!(error instanceof TarDamaged)) throw error;
      throw invalid(this.#request.source, `has a damaged layer: it ${error.message}`);
    } finally {
      await file.close();
    }
  }

  #addBytes(tarBytes: number, fileBytes: number): void {
    this.#tarBytes += tarBytes;
    this.#fileBytes += fileBytes;
    if (Math.max(this.#tarBytes, this.#fileBytes) > this.#request.limits.maxBytes) throw this.#tooLarge();
  }

  #tooLarge(): RootfsError {
    const { source, limits } = this.#request;
    return tooLarge(source, `has layers of more than ${limits.maxBytes} bytes`, 'limits.maxBytes');
  }
}

function listOf(value: Json): readonly Json[] {
  return Array.isArray(value) ? value : [];
}

function invalid(source: string, why: string): RootfsError {
  return new RootfsError('ARTIFACT_INVALID', `${source} ${why}`, { path: source });
}
