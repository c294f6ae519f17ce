import type { TransferOptions, TransferProgress } from './transfer-options.js';

/** Bytes of all files, for each step of a push. */
export class PushProgress {
  readonly #bytesTotal: number;
  readonly #onProgress: TransferOptions['onProgress'];
  #bytesInPacks = 0;
  #reusedBytes = 0;

  constructor(bytesTotal: number, onProgress: TransferOptions['onProgress']) {
    this.#bytesTotal = bytesTotal;
    this.#onProgress = onProgress;
  }

  packDone(bytes: number, wasSent: boolean): void {
    this.#bytesInPacks += bytes;
    if (!wasSent) this.#reusedBytes += bytes;
    this.report('upload', this.#bytesInPacks);
  }

  report(step: TransferProgress['step'], bytesDone: number): void {
    this.#onProgress?.({ step, bytesDone, bytesTotal: this.#bytesTotal, reusedBytes: this.#reusedBytes });
  }
}
