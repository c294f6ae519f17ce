// Limits how much a source may hold, so that an untrusted source cannot cause unbounded work or memory use.
import { RootfsError } from '../../system/errors.js';

export interface TreeLimits {
  /** Files, folders and links. */
  readonly maxFiles: number;
  /** Folder depth. */
  readonly maxDepth: number;
}

/** Counts the files of a tree. Throws `SOURCE_TOO_LARGE` if there are too many or they are too deep. */
export class TreeCount {
  readonly #source: string;
  readonly #limits: TreeLimits;
  #files = 0;

  constructor(source: string, limits: TreeLimits) {
    this.#source = source;
    this.#limits = limits;
  }

  /** How many more files the tree may hold. */
  get left(): number {
    return this.#limits.maxFiles - this.#files;
  }

  /** Counts one more file, which is `depth` names below the root folder. */
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
