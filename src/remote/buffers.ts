// Large buffers that are used again. New ones each time would pile up before the garbage collector runs.

export class Buffers {
  readonly #bytes: number;
  readonly #idle: Buffer[] = [];

  /** Each as long as the longest need. */
  constructor(bytes: number) {
    this.#bytes = bytes;
  }

  async with<T>(use: (buffer: Buffer) => Promise<T>): Promise<T> {
    const buffer = this.take();
    const result = await use(buffer);
    this.giveBack(buffer);
    return result;
  }

  take(): Buffer {
    return this.#idle.pop() ?? Buffer.allocUnsafeSlow(this.#bytes);
  }

  /** Not after a failure: somebody may still write to it, or read it. */
  giveBack(buffer: Buffer): void {
    this.#idle.push(buffer);
  }
}
