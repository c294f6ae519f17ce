// Which image a layer of another tool has become: <folder>/.microvm-rootfs/disks/<SHA-256 of the layer> holds the
// SHA-256 of the image. It saves fetching the layer again.

import { readFile } from 'node:fs/promises';
import type { ManagedFolder } from '../folder/managed-folder.js';
import type { Blob } from './blob-reader.js';
import { KeptFiles } from './kept-files.js';

export class KnownDisks {
  readonly #files: KeptFiles;

  constructor(folder: ManagedFolder) {
    this.#files = new KeptFiles(folder, 'disks');
  }

  /** The digest of the image, if it is known. */
  async get(layer: Blob): Promise<string | undefined> {
    const text = await this.#read(nameOf(layer));
    return /^[0-9a-f]{64}$/.test(text) ? text : undefined;
  }

  put(layer: Blob, sha256: string): Promise<void> {
    return this.#files.put(nameOf(layer), sha256);
  }

  /** Forgets layers that have become other images. */
  async keepOnly(digests: ReadonlySet<string>): Promise<void> {
    for (const name of await this.#files.names())
      if (!digests.has(await this.#read(name))) await this.#files.remove(name);
  }

  #read(name: string): Promise<string> {
    return readFile(this.#files.pathOf(name), 'latin1').catch(() => '');
  }
}

function nameOf({ digest }: Blob): string {
  return digest.replace(/^sha256:/, '');
}
