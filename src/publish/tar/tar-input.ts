// Reads a tar from its start to its end, a window of bytes at a time.

import { TAR_BLOCK_BYTES } from './header.js';
import { TarCutOff, WAS_CUT_OFF } from './tar-damaged.js';

// Read size. Headers of small files are close together.
export const WINDOW_BYTES = 128 * 1024;

/** What a tar is read from, such as a `FileHandle`. */
export interface TarBytes {
  read(buffer: Buffer, offset: number, length: number, position: number): Promise<{ bytesRead: number }>;
}

export class TarInput {
  /** Infinite where only the start is there. */
  readonly size: number;
  /** Where the next bytes begin. */
  at = 0;
  readonly #bytes: TarBytes;
  #window: Buffer = Buffer.alloc(0);
  #windowAt = 0;

  constructor(bytes: TarBytes, size: number) {
    this.#bytes = bytes;
    this.size = size;
  }

  /** Skips the contents and the padding of their last block. */
  async skip(length: number): Promise<void> {
    const whole = Math.ceil(length / TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES;
    if (!isLength(length) || this.at + whole > this.size) throw cutOff();
    this.at += whole;
  }

  /** The next bytes, valid until the next call. */
  async take(length: number): Promise<Buffer> {
    if (this.at + length > this.size) throw cutOff();
    const from = this.at - this.#windowAt;
    if (from < 0 || from + length > this.#window.length) {
      const wanted = Math.min(Math.max(WINDOW_BYTES, length), this.size - this.at);
      const window = Buffer.allocUnsafe(wanted);
      let done = 0;
      for (let bytesRead = -1; done < wanted && bytesRead !== 0; done += bytesRead)
        ({ bytesRead } = await this.#bytes.read(window, done, wanted - done, this.at + done));
      if (done < length) throw cutOff();
      this.#window = window.subarray(0, done);
      this.#windowAt = this.at;
    }
    const start = this.at - this.#windowAt;
    this.at += length;
    return this.#window.subarray(start, start + length);
  }
}

export function isLength(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

function cutOff(): TarCutOff {
  return new TarCutOff(`ends within a member: ${WAS_CUT_OFF}`);
}
