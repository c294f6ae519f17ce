// Files in our own folder in the catalog that only save work. What cannot be kept, or is gone, is computed again.

import { unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { namesIn } from '../folder/names-in.js';
import { replaceOwnFile } from '../folder/state-files.js';
import { makeFolders } from '../system/make-folders.js';

export class KeptFiles {
  readonly #folder: ManagedFolder;
  readonly #path: string;

  /** `name` is that of their folder. */
  constructor(folder: ManagedFolder, name: string) {
    this.#folder = folder;
    this.#path = `${folder.statePath}/${name}`;
  }

  pathOf(name: string): string {
    return join(this.#path, name);
  }

  /** Never rejects. */
  async put(name: string, contents: string | Buffer): Promise<void> {
    await this.#folder
      .use(async ({ sessionPath }) => {
        await makeFolders(this.#path, 0o700);
        await replaceOwnFile(this.pathOf(name), contents, sessionPath);
      })
      .catch(() => {});
  }

  names(): Promise<string[]> {
    return namesIn(this.#path).catch(() => []);
  }

  async remove(name: string): Promise<void> {
    await unlink(this.pathOf(name)).catch(() => {});
  }
}
