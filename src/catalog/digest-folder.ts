// The folder of digests: a record for each file.
//
//   <clonesDir>/.microvm-rootfs/digests/<file>   a symbolic link to nothing: its text is a state of the file, and its
//                                                digest
//
// A symbolic link appears, or is replaced by a rename, with its text and at once, without a flush: after a power cut it
// is there or not. All processes share the records, and reading one takes a single system call. Each has a check, so
// that nothing else is taken for one.

import { rename, rm, symlink, unlink } from 'node:fs/promises';
import { native } from '../addon/native.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import type { OpenFolder } from '../folder/open-folder.js';
import { asRootfsError, failedWith, hasCode, mayNotWrite } from '../system/errors.js';
import { isMissing } from '../system/is-missing.js';
import { makeFolders } from '../system/make-folders.js';
import { type DigestRecord, parse, serialize } from './digest-record.js';

export class DigestFolder {
  readonly path: string;
  readonly #folder: ManagedFolder;
  /** What was learned while there was no clones folder, for example when listing stacks. */
  readonly #unsaved = new Map<string, string>();
  #staged = 0;
  #warned = false;

  constructor(folder: ManagedFolder) {
    this.#folder = folder;
    this.path = `${folder.statePath}/digests`;
    folder.onOpened(() => this.#saveAll());
  }

  async read(names: readonly (string | undefined)[]): Promise<(DigestRecord | undefined)[]> {
    const lines = await this.#lines(names.map((name) => name ?? ''));
    return names.map((name, i) => {
      if (name === undefined) return undefined;
      const line = this.#unsaved.get(name) ?? lines[i];
      return line === undefined ? undefined : parse(name, line);
    });
  }

  /** Saves a record if there is a clones folder, else when there is one. Failing to save is a warning, not an error. */
  async save(name: string, record: DigestRecord): Promise<void> {
    this.#unsaved.set(name, serialize(name, record));
    if (this.#folder.opened !== undefined) await this.#saveAll();
    else await this.#openFolder();
  }

  /** Saves a record in the place of the one that is there. */
  replace(name: string, record: DigestRecord, folder: OpenFolder): Promise<void> {
    return this.#replace(serialize(name, record), `${this.path}/${name}`, folder);
  }

  async forget(name: string): Promise<void> {
    this.#unsaved.delete(name);
    if (this.#folder.opened !== undefined) await unlink(`${this.path}/${name}`).catch(() => {});
  }

  /** Warns once, because a full disk would cause a warning for each template. */
  warn(error: unknown): void {
    if (this.#warned) return;
    this.#warned = true;
    const { message } = asRootfsError(`writing ${this.path}`, error) as Error;
    process.emitWarning(`digests are not kept: ${message}`, { code: 'MICROVM_ROOTFS_DIGESTS' });
  }

  async #lines(names: readonly string[]): Promise<(string | undefined)[]> {
    try {
      return await native().readLinks(this.path, names);
    } catch (error) {
      // Without the records, templates are hashed again. An unreadable folder is reported when slots are made.
      if (failedWith(error, 'EACCES', 'ENOTDIR', 'ELOOP')) return [];
      throw asRootfsError(`reading ${this.path}`, error);
    }
  }

  /** Opening the folder saves what is unsaved. A listing alone creates no clones folder. */
  async #openFolder(): Promise<void> {
    if (await isMissing(this.#folder.path)) return;
    try {
      await this.#folder.use(async () => {});
    } catch (error) {
      // A process that can only read the folder saves nothing in it.
      if (!mayNotWrite(error) && !hasCode(error, 'CLOSED')) this.warn(error);
    }
  }

  async #saveAll(): Promise<void> {
    for (const [name, line] of this.#unsaved) {
      this.#unsaved.delete(name);
      try {
        await this.#save(name, line);
      } catch (error) {
        this.warn(error);
      }
    }
  }

  async #save(name: string, line: string): Promise<void> {
    const path = `${this.path}/${name}`;
    try {
      await symlink(line, path);
    } catch (error) {
      if (failedWith(error, 'ENOENT')) {
        await makeFolders(this.path, 0o700);
        await this.#replace(line, path);
      } else if (failedWith(error, 'EEXIST')) {
        await this.#replace(line, path);
      } else {
        throw error;
      }
    }
  }

  async #replace(line: string, path: string, folder = this.#folder.opened): Promise<void> {
    if (folder === undefined) return;
    const staged = `${folder.sessionPath}/digest-${this.#staged++}`;
    try {
      await symlink(line, staged);
      await rename(staged, path);
    } catch (error) {
      await rm(staged, { force: true }).catch(() => {}); // goes with its folder
      throw error;
    }
  }
}
