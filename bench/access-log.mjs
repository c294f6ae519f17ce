// What a web server has sent, by its log in the "combined" format, which docker-registry and nginx both write.
import { open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

/** @typedef {{ bytes: number, requests: number }} Traffic bytes of bodies, and reads */

/** A line is written after the answer, which the client may have had before. */
const LATENESS_MS = 300;
const READ = /"(?:GET|HEAD) [^"]*" \d{3} (\d+|-)/;

export class AccessLog {
  #path;
  #position = 0;

  /** @param {string} path */
  constructor(path) {
    this.#path = path;
  }

  /** @returns {Promise<Traffic>} since it was last asked for */
  async traffic() {
    await sleep(LATENESS_MS);
    const file = await open(this.#path);
    try {
      const { size } = await file.stat();
      const text = Buffer.alloc(size - this.#position);
      await file.read(text, 0, text.length, this.#position);
      this.#position = size;
      const reads = text
        .toString()
        .split('\n')
        .flatMap((line) => READ.exec(line)?.[1] ?? []);
      const bytes = reads.reduce((sum, sent) => sum + (Number(sent) || 0), 0);
      return { bytes, requests: reads.length };
    } finally {
      await file.close();
    }
  }
}
