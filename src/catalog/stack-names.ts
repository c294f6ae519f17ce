// Which stack a slot was cloned of. Another file in each slot would make a clone a sixth slower, and the stamp tells it already, as long as
// no two stacks have the same bytes. So the first stack that has a digest is recorded once, and slots of any other stack with that digest
// say so themselves, in a file.
//
//   <clonesDir>/.microvm-rootfs/stacks/<sha256>   a symbolic link to nothing, that is the stack's name: made by one call, and only if there is none
import { mkdir, readlink, symlink } from 'node:fs/promises';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { dropOldest } from '../system/drop-oldest.js';
import { failedWith } from '../system/errors.js';
import { flush } from '../system/flush.js';

const KNOWN_LIMIT = 10_000;

export class StackNames {
  readonly #path: string;
  /** Null where it could not be recorded. */
  readonly #first = new Map<string, string | null>();

  constructor(folder: ManagedFolder) {
    this.#path = `${folder.statePath}/stacks`;
    // What was recorded in a folder that was moved away is not recorded in the one that has its place.
    folder.onOpened(async () => this.#first.clear());
  }

  /** Whether {@link record} was called for the digest. */
  isKnown(sha256: string): boolean {
    return this.#first.has(sha256);
  }

  /** What a slot has to say itself. */
  stackToStore(sha256: string, stack: string): string | undefined {
    return this.#first.get(sha256) === stack ? undefined : stack;
  }

  /** To be called before the first clone. Where it fails, on a full disk for instance, each slot tells its stack itself. */
  async record(sha256: string, stack: string): Promise<void> {
    if (this.#first.has(sha256)) return;
    let first = await this.firstWith(sha256);
    if (first === undefined) {
      try {
        await mkdir(this.#path, { recursive: true, mode: 0o700 });
        await symlink(stack, `${this.#path}/${sha256}`).catch(unlessThere);
        // A durable slot must not outlive the record.
        await flush(this.#path);
        first = await this.firstWith(sha256);
      } catch {
        this.#remember(sha256, null);
      }
    }
    if (first !== undefined) this.#remember(sha256, first);
  }

  /** The first stack that had this digest, if that was recorded. */
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
