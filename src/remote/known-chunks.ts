// Chunk lists of images that this host has, by digest: <folder>/.microvm-rootfs/chunks/<sha256>. They only save work:
// each chunk that is taken from an image is hashed again.

import { mkdir, open, readdir, rename, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ManagedFolder, OpenFolder } from '../folder/managed-folder.js';
import type { Task } from '../system/task.js';
import { ChunkList } from './chunk-list.js';

/** Of an image with 20 TiB of data. */
export const LIST_BYTES_LIMIT = 256 * 1024 * 1024;

let writes = 0;

export class KnownChunks {
  readonly #folder: ManagedFolder;
  readonly #path: string;

  constructor(folder: ManagedFolder) {
    this.#folder = folder;
    this.#path = `${folder.statePath}/chunks`;
  }

  /** Undefined if none is kept, or what is kept is damaged or of another length. */
  async get(sha256: string, sizeBytes: number): Promise<ChunkList | undefined> {
    try {
      const file = await open(join(this.#path, sha256), 'r');
      try {
        const { size } = await file.stat();
        if (size > LIST_BYTES_LIMIT) return undefined;
        const list = ChunkList.parse(await file.readFile());
        return list.sizeBytes === sizeBytes ? list : undefined;
      } finally {
        await file.close();
      }
    } catch {
      return undefined;
    }
  }

  /** A list that cannot be kept is no error: the image is read again when needed. */
  async put(sha256: string, { bytes }: ChunkList): Promise<void> {
    await this.#folder
      .use(async ({ sessionPath }: OpenFolder) => {
        const temporary = join(sessionPath, `chunks-${++writes}`);
        await mkdir(this.#path, { recursive: true, mode: 0o700 });
        try {
          await writeFile(temporary, bytes, { mode: 0o600, flush: true });
          await rename(temporary, join(this.#path, sha256));
        } catch (error) {
          await this.#folder.discard(temporary);
          throw error;
        }
      })
      .catch(() => {});
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
    return new Set(await readdir(this.#path).catch(() => []));
  }

  /** Removes the lists of other images. */
  async keepOnly(digests: ReadonlySet<string>): Promise<void> {
    const names = await readdir(this.#path).catch(() => []);
    for (const name of names) if (!digests.has(name)) await unlink(join(this.#path, name)).catch(() => {});
  }
}
