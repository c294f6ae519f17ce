// Holds the file that an image's name has. Growing it waits for programs, for minutes perhaps, and meanwhile the name
// may go to another VM's disk.

import { type FileHandle, open, stat } from 'node:fs/promises';
import { failedWith, isGone, RootfsError } from '../system/errors.js';
import { isKernelSince } from '../system/kernel-version.js';
import { untilUnused } from '../system/until-unused.js';
import { inUseError, isOpenElsewhere } from './open-elsewhere.js';

// Opens nothing: it is no use of the image, and no new file gets its inode. Node has no name for it.
const O_PATH = 0o10_000_000;

export const NEEDS_PROC = 'it needs /proc: mount that where this process runs';

/** Rejects with `SLOT_IN_USE`, `SHARED_INODE`. */
export async function refuseInUse(path: string, reached = path): Promise<void> {
  const { nlink } = await stat(reached);
  if (nlink > 1) {
    throw new RootfsError(
      'SHARED_INODE',
      `${path} has ${nlink} hardlinks (a template and its clones?), and growing it would change all of ` +
        'them: copy it first',
      { path },
    );
  }
  if (await untilUnused(() => isOpenElsewhere(reached, true), Boolean)) throw inUseError(path);
}

/** A `HeldFile` of programs. */
export class HeldImage {
  readonly path: string;
  readonly #file: FileHandle;

  private constructor(path: string, file: FileHandle) {
    this.path = path;
    this.#file = file;
  }

  /** Rejects with `SLOT_BUSY` if another file has the name in the end. */
  static async hold(path: string, work: (image: HeldImage) => Promise<void>): Promise<void> {
    const file = await open(path, O_PATH);
    try {
      const image = new HeldImage(path, file);
      await stat(image.reached).catch((error: unknown) => {
        throw failedWith(error, 'ENOENT')
          ? new RootfsError('RESIZE_FAILED', `${path} is not grown: ${NEEDS_PROC}`, { path })
          : error;
      });
      await work(image);
      await image.#requireName();
    } finally {
      await file.close();
    }
  }

  get fd(): number {
    return this.#file.fd;
  }

  /** In messages. */
  get name(): string {
    return this.path;
  }

  /** Where this process reaches it, whatever has its name. */
  get reached(): string {
    return `/proc/self/fd/${this.fd}`;
  }

  /** Before each change. Rejects with `SLOT_BUSY` if another file has the name, and if it is in use by now. */
  async requireOurs(): Promise<void> {
    await this.#requireName();
    // Older kernels count what holds it as a use (Linux commit 387e3746d01c).
    if (isKernelSince(5, 3)) await refuseInUse(this.path, this.reached);
  }

  async #requireName(): Promise<void> {
    // On FUSE a file that is held, and not open, is gone with its name.
    const held = await this.#file.stat({ bigint: true }).catch(undefinedIfGone);
    const named = await stat(this.path, { bigint: true }).catch(undefinedIfGone);
    if (held !== undefined && named?.dev === held.dev && named.ino === held.ino) return;
    throw new RootfsError(
      'SLOT_BUSY',
      `${this.path} was removed, or is another file, since growing it began: what is there now was not changed; ` +
        'look at it, and try again',
      { path: this.path },
    );
  }
}

function undefinedIfGone(error: unknown): undefined {
  if (!isGone(error)) throw error;
}
