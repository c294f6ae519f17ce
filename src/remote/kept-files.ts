// Files of our own folder in the catalog that only save work: what cannot be kept, or is gone, is found out again.

import { mkdir, readdir, rename, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ManagedFolder } from '../folder/managed-folder.js';

let writes = 0;

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
  async put(name: string, content: Buffer | string): Promise<void> {
    await this.#folder
      .use(async ({ sessionPath }) => {
        const temporary = join(sessionPath, `kept-${++writes}`);
        await mkdir(this.#path, { recursive: true, mode: 0o700 });
        try {
          await writeFile(temporary, content, { mode: 0o600, flush: true });
          await rename(temporary, this.pathOf(name));
        } catch (error) {
          await this.#folder.discard(temporary);
          throw error;
        }
      })
      .catch(() => {});
  }

  names(): Promise<string[]> {
    return readdir(this.#path).catch(() => []);
  }

  async remove(name: string): Promise<void> {
    await unlink(this.pathOf(name)).catch(() => {});
  }
}
