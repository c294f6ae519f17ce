// Which image a layer of another tool has become: <folder>/.microvm-rootfs/disks/<SHA-256 of the layer>. It saves
// fetching the layer again.

import type { ManagedFolder } from '../folder/managed-folder.js';
import { readOwnFile } from '../folder/state-files.js';
import { IMAGE_FORMATS, type ImageFormat } from '../publish/image-format.js';
import { isSha256 } from '../system/sha256.js';
import type { Blob } from './blob-reader.js';
import { KeptFiles } from './kept-files.js';

interface KnownDiskLayer {
  /** The SHA-256 of the image. */
  readonly sha256: string;
  /** What a caller expected, if that was right: the digest before a journal was replayed. */
  readonly expectedSha256: string | undefined;
  /** The format of the layer. */
  readonly format: ImageFormat;
}

const RECORD_BYTES_LIMIT = 256;

export class KnownDiskLayers {
  readonly #files: KeptFiles;

  constructor(folder: ManagedFolder) {
    this.#files = new KeptFiles(folder, 'disks');
  }

  /** Undefined if it is not known, or if its image may be another than the expected one. */
  async get(layer: Blob, expectedSha256: string | undefined): Promise<KnownDiskLayer | undefined> {
    const known = await this.#read(nameOf(layer));
    const isExpected =
      expectedSha256 === undefined || [known?.sha256, known?.expectedSha256].includes(expectedSha256);
    return isExpected ? known : undefined;
  }

  put(layer: Blob, { sha256, expectedSha256 = '', format }: KnownDiskLayer): Promise<void> {
    return this.#files.put(nameOf(layer), [sha256, format, expectedSha256].join('\n'));
  }

  /** Forgets layers that have become other images. */
  async keepOnly(digests: ReadonlySet<string>): Promise<void> {
    for (const name of await this.#files.names()) {
      const known = await this.#read(name);
      if (known === undefined || !digests.has(known.sha256)) await this.#files.remove(name);
    }
  }

  async #read(name: string): Promise<KnownDiskLayer | undefined> {
    const text = await readOwnFile(this.#files.pathOf(name), RECORD_BYTES_LIMIT).catch(() => undefined);
    const [sha256 = '', formatName, expectedSha256 = ''] = (text ?? '').split('\n');
    const format = IMAGE_FORMATS.find((each) => each === formatName);
    if (!isSha256(sha256) || format === undefined) return undefined;
    return { sha256, format, expectedSha256: isSha256(expectedSha256) ? expectedSha256 : undefined };
  }
}

function nameOf({ digest }: Blob): string {
  return digest.replace(/^sha256:/, '');
}
