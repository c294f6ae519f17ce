// Holds the layers of a container image to the limits while umoci, which has none, unpacks them, refuses what it cannot
// unpack, and remembers what they list. Only headers are looked at.

import { createReadStream } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { pipeline, type Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { RootfsError } from '../system/errors.js';
import { Pause } from '../system/pause.js';
import type { Task } from '../system/task.js';
import { isOfZlib } from './decompress.js';
import type { PublishLimits } from './publish-options.js';
import { requireSettable } from './tar/attribute-faults.js';
import { readMembers } from './tar/members.js';
import { TarCutOff, TarDamaged } from './tar/tar-damaged.js';
import { type TarBytes, WINDOW_BYTES } from './tar/tar-input.js';
import { TreeCount, tooLarge } from './tree/limits.js';
import { ListedFiles, type ListedFolder, namesOf } from './tree/listed-files.js';

/** A tar, perhaps in gzip. */
export interface LayerFile {
  readonly path: string;
  readonly isGzip: boolean;
}

const READ_BYTES = 256 * 1024;

/** What the layers list. Rejects with `SOURCE_TOO_LARGE`, or `ARTIFACT_INVALID` if a layer is damaged. */
export async function countLayers(
  task: Task,
  source: string,
  layers: readonly LayerFile[],
  limits: Required<PublishLimits>,
): Promise<ListedFolder> {
  const count = new LayerCount(task, source, limits);
  for (const layer of layers) await count.add(layer);
  return count.listed;
}

class LayerCount {
  readonly #task: Task;
  readonly #source: string;
  readonly #maxBytes: number;
  readonly #tree: TreeCount;
  readonly #pause: Pause;
  readonly #listed: ListedFiles;
  #tarBytes = 0;
  #fileBytes = 0;

  constructor(task: Task, source: string, limits: Required<PublishLimits>) {
    this.#task = task;
    this.#source = source;
    this.#maxBytes = limits.maxBytes;
    this.#tree = new TreeCount(source, limits);
    this.#pause = new Pause(() => task.checkAborted());
    this.#listed = new ListedFiles((depth) => this.#tree.add(depth), this.#pause);
  }

  get listed(): ListedFolder {
    return this.#listed.root;
  }

  async add({ path, isGzip }: LayerFile): Promise<void> {
    this.#listed.beginLayer();
    try {
      if (isGzip) await this.#addCompressed(path);
      else await this.#addPlain(path);
    } catch (error) {
      // `umoci insert` leaves out the padding behind the last file. umoci tells whether more is missing.
      if (error instanceof TarCutOff) return;
      if (error instanceof TarDamaged) throw damagedLayer(this.#source, `it ${error.message}`, error);
      throw isOfZlib(error) ? damagedLayer(this.#source, error.message, error) : error;
    }
  }

  async #addPlain(path: string): Promise<void> {
    const { size } = await stat(path);
    this.#addBytes(size, 0);
    const file = await open(path, 'r');
    try {
      await this.#addMembers(file);
    } finally {
      await file.close();
    }
  }

  async #addCompressed(path: string): Promise<void> {
    const gunzip = createGunzip({ chunkSize: READ_BYTES });
    // An error of either ends the reading of the output.
    pipeline(createReadStream(path, { highWaterMark: READ_BYTES }), gunzip, () => {});
    try {
      const bytes = new StreamBytes(gunzip, (count) => this.#addBytes(count, 0));
      await this.#addMembers(bytes);
    } finally {
      gunzip.destroy();
    }
  }

  /** A sparse file may be far longer than the tar that it is in. What lies behind the tar's end is ignored by umoci. */
  async #addMembers(bytes: TarBytes): Promise<void> {
    const checkAborted = () => this.#task.checkAborted();
    for await (const member of readMembers(bytes, Number.POSITIVE_INFINITY, { checkAborted })) {
      this.#tree.add(namesOf(member.path).length);
      this.#addBytes(0, member.sizeBytes);
      requireSettable(member);
      await this.#listed.add(member);
      await this.#pause.ifDue();
    }
  }

  #addBytes(tarBytes: number, fileBytes: number): void {
    this.#task.checkAborted();
    this.#tarBytes += tarBytes;
    this.#fileBytes += fileBytes;
    if (Math.max(this.#tarBytes, this.#fileBytes) <= this.#maxBytes) return;
    throw layersTooLarge(this.#source, this.#maxBytes);
  }
}

export function damagedLayer(source: string, why: string, cause: Error): RootfsError {
  return new RootfsError('ARTIFACT_INVALID', `${source} has a damaged layer: ${why}`, {
    path: source,
    cause,
  });
}

export function layersTooLarge(source: string, maxBytes: number): RootfsError {
  return tooLarge(source, `has layers of more than ${maxBytes} bytes`, 'limits.maxBytes');
}

/** A stream, of which a tar's reader goes back by less than its window. */
class StreamBytes implements TarBytes {
  readonly #stream: AsyncIterator<Buffer>;
  readonly #onBytes: (count: number) => void;
  #kept: Buffer[] = [];
  /** Where they begin and end. */
  #from = 0;
  #to = 0;

  constructor(stream: Readable, onBytes: (count: number) => void) {
    this.#stream = stream[Symbol.asyncIterator]();
    this.#onBytes = onBytes;
  }

  async read(
    buffer: Buffer,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ bytesRead: number }> {
    while (position >= this.#to) if (!(await this.#readMore())) return { bytesRead: 0 };
    let at = this.#from;
    for (const part of this.#kept) {
      if (position < at + part.length)
        return { bytesRead: part.copy(buffer, offset, position - at, position - at + length) };
      at += part.length;
    }
    return { bytesRead: 0 };
  }

  async #readMore(): Promise<boolean> {
    const { done, value } = await this.#stream.next();
    if (done) return false;
    this.#onBytes(value.length);
    this.#kept.push(value);
    this.#to += value.length;
    for (let first = this.#kept[0]; first !== undefined; first = this.#kept[0]) {
      if (this.#from + first.length > this.#to - value.length - WINDOW_BYTES) break;
      this.#from += first.length;
      this.#kept.shift();
    }
    return true;
  }
}
