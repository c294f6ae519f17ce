// The C programs of bench/floor: compiled for the run, and kept running beside it to take a sample when their turn
// comes.
import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { output } from './command.mjs';

/** @typedef {'clone' | 'slot' | 'ready-slot' | 'slots-two-threads' | 'scatter' | 'slow-link'} FloorName */

/** @type {FloorName[]} */
const NAMES = ['clone', 'slot', 'ready-slot', 'slots-two-threads', 'scatter', 'slow-link'];

/**
 * @param {string} folder where to put the binaries
 * @returns {Promise<(name: FloorName) => string>} the path of each
 */
export async function compileFloor(folder) {
  mkdirSync(folder);
  const pathOf = (/** @type {FloorName} */ name) => join(folder, name);
  for (const name of NAMES) {
    const source = new URL(`floor/${name}.c`, import.meta.url).pathname;
    await output('cc', [
      '-O2',
      '-std=gnu11',
      '-Wall',
      '-Wextra',
      '-Werror',
      '-pthread',
      '-o',
      pathOf(name),
      source,
    ]);
  }
  return pathOf;
}

export class FloorProgram {
  #child;
  #lines;

  /**
   * @param {string} program
   * @param {string[]} args
   */
  constructor(program, args) {
    this.#child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  /** @returns {Promise<number>} nanoseconds, by the program's own clock */
  async sample() {
    this.#child.stdin.write('1\n');
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`${this.#child.spawnfile} ended`);
    return JSON.parse(value).ns[0];
  }

  /** @returns {Promise<void>} when it has ended */
  stop() {
    if (this.#child.exitCode !== null) return Promise.resolve(); // it failed
    return new Promise((resolve) => {
      this.#child.once('exit', () => resolve());
      this.#child.stdin.end();
    });
  }
}
