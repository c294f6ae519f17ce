// Remembers which stack a slot was cloned from. One more file in each slot would make a clone a sixth slower, and the
// stamp identifies the stack unless two stacks have the same bytes. So the first stack with a digest is recorded once,
// and slots of any other stack with that digest hold its name in a file.
//
//   <clonesDir>/.microvm-rootfs/stacks/<sha256>   a symbolic link whose target is the stack's name; one
//                                                 call creates it if there is none
import { readlink, symlink } from 'node:fs/promises';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { dropOldest } from '../system/drop-oldest.js';
import { failedWith } from '../system/errors.js';
import { flush } from '../system/flush.js';
import { makeFolders } from '../system/make-folders.js';

const KNOWN_LIMIT = 10_000;

export class StacksByDigest {
  readonly #path: string;
  /** Null if it could not be recorded. */
  readonly #first = new Map<string, string | null>();

  constructor(folder: ManagedFolder) {
    this.#path = `${folder.statePath}/stacks`;
    // A folder that takes the place of another has records of its own.
    folder.onOpened(async () => this.#first.clear());
  }

  /** Whether {@link record} was called for the digest. */
  isKnown(sha256: string): boolean {
    return this.#first.has(sha256);
  }

  /** The stack that a slot has to name in a file, if any. */
  stackToStore(sha256: string, stack: string): string | undefined {
    return this.#first.get(sha256) === stack ? undefined : stack;
  }

  /**
   * Call this before the first clone, best when publishing: it flushes. If it fails, for example on a full disk, each
   * slot names its stack in a file.
   */
  async record(sha256: string, stack: string): Promise<void> {
    if (this.#first.has(sha256)) return;
    let first = await this.firstWith(sha256);
    if (first === undefined) {
      try {
        await makeFolders(this.#path, 0o700);
        await symlink(stack, `${this.#path}/${sha256}`).catch(unlessThere);
        // Flushed, so that no durable slot survives without it.
        await flush(this.#path);
        first = await this.firstWith(sha256);
      } catch {
        this.#remember(sha256, null);
      }
    }
    if (first !== undefined) this.#remember(sha256, first);
  }

  /** The first stack that had this digest, if one was recorded. */
  async firstWith(sha256: string): Promise<string | undefined> {
    const known = this.#first.get(sha256);
    if (known !== undefined && known !== null) return known;
    try {
      const first = await readlink(`${this.#path}/${sha256}`);
      this.#remember(sha256, first);
      return first;
    } catch {
      return undefined;
    }
  }

  #remember(sha256: string, first: string | null): void {
    this.#first.set(sha256, first);
    dropOldest(this.#first, KNOWN_LIMIT);
  }
}

function unlessThere(error: unknown): void {
  if (!failedWith(error, 'EEXIST')) throw error;
}
