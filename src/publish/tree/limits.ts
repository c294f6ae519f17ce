// How much a source may hold. What comes from a stranger must not be work, or memory, without an end.
import { RootfsError } from '../../system/errors.js';

export interface TreeLimits {
  /** Files, folders and links. */
  readonly maxFiles: number;
  /** Folders within each other. */
  readonly maxDepth: number;
}

/** Counts the files of a tree, and throws `SOURCE_TOO_LARGE` when there are too many, or too deep. */
export class TreeCount {
  readonly #source: string;
  readonly #limits: TreeLimits;
  #files = 0;

  constructor(source: string, limits: TreeLimits) {
    this.#source = source;
    this.#limits = limits;
  }

  /** One more file, with so many names from the root folder to its own. */
  add(depth: number): void {
    const { maxFiles, maxDepth } = this.#limits;
    if (++this.#files > maxFiles)
      throw tooLarge(this.#source, `holds more than ${maxFiles} files`, 'limits.maxFiles');
    if (depth > maxDepth)
      throw tooLarge(this.#source, `holds files more than ${maxDepth} folders deep`, 'limits.maxDepth');
  }
}

export function tooLarge(source: string, what: string, option: string): RootfsError {
  return new RootfsError(
    'SOURCE_TOO_LARGE',
    `${source} ${what}: if you trust where it comes from, raise ${option}`,
    { path: source },
  );
}
