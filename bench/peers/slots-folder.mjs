// A folder for a peer's slots, emptied between rounds.
import { join } from 'node:path';
import { run } from '../command.mjs';

export class SlotsFolder {
  path;
  #next = 0;

  /** @param {string} path */
  constructor(path) {
    this.path = path;
  }

  /** The path of a slot that is not there yet. */
  next() {
    return join(this.path, `vm-${this.#next++}`);
  }

  empty() {
    return run('find', [this.path, '-mindepth', '1', '-delete']);
  }
}
