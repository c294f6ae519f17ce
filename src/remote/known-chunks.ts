// Chunk lists of images that this host has, by digest: <folder>/.microvm-rootfs/chunks/<sha256>. They only save work:
// each chunk that is taken from an image is hashed again.

import { open } from 'node:fs/promises';
import type { ManagedFolder } from '../folder/managed-folder.js';
import type { Task } from '../system/task.js';
import { ChunkList } from './chunk-list.js';
import { KeptFiles } from './kept-files.js';

/** The list of an image with 20 TiB of data. */
export const LIST_BYTES_LIMIT = 256 * 1024 * 1024;

export class KnownChunks {
  readonly #files: KeptFiles;

  constructor(folder: ManagedFolder) {
    this.#files = new KeptFiles(folder, 'chunks');
  }

  /** Undefined if none is kept, or what is kept is damaged or of another length. */
  async get(sha256: string, sizeBytes: number): Promise<ChunkList | undefined> {
    try {
      const file = await open(this.#files.pathOf(sha256), 'r');
      try {
        const { size } = await file.stat();
        if (size > LIST_BYTES_LIMIT) return undefined;
        const list = await ChunkList.parse(await file.readFile());
        return list.sizeBytes === sizeBytes ? list : undefined;
      } finally {
        await file.close();
      }
    } catch {
      return undefined;
    }
  }

  /** A list that cannot be kept is not an error: the image is read again when needed. */
  put(sha256: string, { bytes }: ChunkList): Promise<void> {
    return this.#files.put(sha256, bytes);
  }

  /** Reads the image if its list is not known. */
  async listOf(
    task: Task,
    path: string,
    { sha256, sizeBytes }: { readonly sha256: string; readonly sizeBytes: number },
    onProgress: (bytesDone: number) => void,
  ): Promise<ChunkList> {
    const known = await this.get(sha256, sizeBytes);
    if (known !== undefined) return known;
    // Loads node:crypto, which takes longer than a first clone should.
    const { cutImage } = await import('./cut.js');
    const file = await open(path, 'r');
    try {
      const list = await cutImage(task, file, sizeBytes, onProgress);
      await this.put(sha256, list);
      return list;
    } finally {
      await file.close();
    }
  }

  /** The digests of images whose chunks are known. */
  async names(): Promise<ReadonlySet<string>> {
    return new Set(await this.#files.names());
  }

  /** Removes the lists of other images. */
  async keepOnly(digests: ReadonlySet<string>): Promise<void> {
    for (const name of await this.#files.names()) if (!digests.has(name)) await this.#files.remove(name);
  }
}
