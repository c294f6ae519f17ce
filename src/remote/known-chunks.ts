// Chunk lists of images that this host has, by digest: <folder>/.microvm-rootfs/chunks/<sha256>. They only save work:
// each chunk that is taken from an image is hashed again. But a push believes a list, zeros included, so only those of
// images with that digest are kept, each followed by its own SHA-256: the disk may change a list, too.

import { type FileHandle, open } from 'node:fs/promises';
import type { ManagedFolder } from '../folder/managed-folder.js';
import type { Task } from '../system/task.js';
import { ChunkList } from './chunk-list.js';
import type { CutImage } from './cut.js';
import { KeptFiles } from './kept-files.js';

/** The list of an image with 20 TiB of data. */
export const LIST_BYTES_LIMIT = 256 * 1024 * 1024;
const DIGEST_BYTES = 32;

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
        if (size > LIST_BYTES_LIMIT + DIGEST_BYTES) return undefined;
        const kept = await file.readFile();
        const bytes = kept.subarray(0, -DIGEST_BYTES);
        if (!(await digestOf(bytes)).equals(kept.subarray(-DIGEST_BYTES))) return undefined;
        const list = await ChunkList.parse(bytes);
        return list.sizeBytes === sizeBytes ? list : undefined;
      } finally {
        await file.close();
      }
    } catch {
      return undefined;
    }
  }

  /** How long the image is, as a list says that may be damaged. NaN if none is kept. */
  async lengthOf(sha256: string): Promise<number> {
    const file = await open(this.#files.pathOf(sha256), 'r').catch(() => undefined);
    try {
      return file === undefined ? Number.NaN : await ChunkList.lengthIn(file);
    } finally {
      await file?.close();
    }
  }

  /**
   * The image was found to have the digest. A list that cannot be kept is not an error: the image is read again when
   * needed.
   */
  async put(sha256: string, { bytes }: ChunkList): Promise<void> {
    await this.#files.put(sha256, Buffer.concat([bytes, await digestOf(bytes)]));
  }

  /** Reads the image if its list is not known. Its bytes may then turn out to have another digest. */
  async listOf(
    task: Task,
    image: FileHandle,
    { sha256, sizeBytes }: { readonly sha256: string; readonly sizeBytes: number },
    onProgress: (bytesDone: number) => void,
  ): Promise<CutImage> {
    const known = await this.get(sha256, sizeBytes);
    if (known !== undefined) return { list: known, sha256 };
    // Loads node:crypto, which takes longer than a first clone should.
    const { cutImage } = await import('./cut.js');
    const cut = await cutImage(task, image, sizeBytes, onProgress);
    if (cut.sha256 === sha256) await this.put(sha256, cut.list);
    return cut;
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

async function digestOf(bytes: Buffer): Promise<Buffer> {
  // Loads node:crypto as well.
  const { blobOfPieces, piecesOf } = await import('./pieces.js');
  const { digest } = await blobOfPieces(piecesOf(bytes));
  return Buffer.from(digest.replace('sha256:', ''), 'hex');
}
