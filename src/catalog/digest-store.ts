// Digests that outlive the process: a record for each file.
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
import { namesIn } from '../folder/names-in.js';
import { asRootfsError, failedWith, hasCode, mayNotWrite } from '../system/errors.js';
import { isMissing } from '../system/is-missing.js';
import { makeFolders } from '../system/make-folders.js';
import { type DigestRecord, type LocatedFile, parse, recordNameOf, serialize } from './digest-record.js';
import { LegacyDigests } from './legacy-digests.js';
import { isCatalogAway } from './template-record.js';

// Records per native call: a few milliseconds of work.
const BATCH = 256;

export class DigestStore {
  readonly #folder: ManagedFolder;
  readonly #path: string;
  readonly #legacy: LegacyDigests;
  /** What was learned while there was no clones folder, for example when listing stacks. */
  readonly #unsaved = new Map<string, string>();
  #staged = 0;
  #warned = false;

  constructor(folder: ManagedFolder) {
    this.#folder = folder;
    this.#path = `${folder.statePath}/digests`;
    this.#legacy = new LegacyDigests(`${folder.statePath}/digests.json`);
    folder.onOpened(() => this.#saveAll());
  }

  /** The digest of each file, if known for its current state. */
  async get(files: readonly LocatedFile[]): Promise<(string | undefined)[]> {
    const names = files.map((file) => recordNameOf(file));
    const digests = (await this.#read(names)).map((record, i) => {
      const { identity } = files[i] as LocatedFile;
      const same =
        record?.sizeBytes === identity.sizeBytes &&
        record.mtimeNs === identity.mtimeNs &&
        record.ctimeNs === identity.ctimeNs;
      return same ? record.sha256 : undefined;
    });
    for (const [i, file] of files.entries()) {
      if (digests[i] !== undefined) continue;
      const sha256 = await this.#legacy.get(file);
      if (sha256 !== undefined) await this.put(file, sha256);
      digests[i] = sha256;
    }
    return digests;
  }

  /**
   * Adds a digest, and saves it for later processes if there is a clones folder. Failing to save is a warning, not an
   * error.
   */
  async put(file: LocatedFile, sha256: string): Promise<void> {
    const name = recordNameOf(file);
    if (name === undefined) return;
    const { sizeBytes, mtimeNs, ctimeNs } = file.identity;
    this.#unsaved.set(name, serialize(name, { sizeBytes, mtimeNs, ctimeNs, sha256, path: file.path }));
    if (this.#folder.opened !== undefined) await this.#saveAll();
    else await this.#openFolder();
  }

  /** Removes the record of a file that was replaced. */
  async forget(file: LocatedFile): Promise<void> {
    const name = recordNameOf(file);
    if (name === undefined) return;
    this.#unsaved.delete(name);
    if (this.#folder.opened !== undefined) await unlink(`${this.#path}/${name}`).catch(() => {});
  }

  /**
   * Removes the records of files that are no longer at their paths. While the template folder is missing, its records
   * stay.
   */
  async collect(): Promise<void> {
    try {
      await this.#collect();
    } catch (error) {
      throw asRootfsError(`collecting ${this.#path}`, error);
    }
  }

  async #collect(): Promise<void> {
    const names = await namesIn(this.#path);
    for (let i = 0; i < names.length; i += BATCH) {
      const batch = names.slice(i, i + BATCH);
      const records = await this.#read(batch);
      const paths = records.map((record) => record?.path ?? '');
      const now = await native().identities(paths);
      for (const [k, name] of batch.entries()) {
        if (await this.#isWanted(name, records[k], now[k])) continue;
        await rm(`${this.#path}/${name}`, { force: true, recursive: true });
      }
    }
  }

  async #isWanted(
    name: string,
    record: DigestRecord | undefined,
    now: (LocatedFile['identity'] & Pick<LocatedFile, 'filesystem'>) | undefined,
  ): Promise<boolean> {
    if (record === undefined) return false;
    const { path } = record;
    if (path === '') return true;
    if (now === undefined) return isCatalogAway(path, undefined);
    return recordNameOf({ path, identity: now, filesystem: now.filesystem }) === name;
  }

  async #read(names: readonly (string | undefined)[]): Promise<(DigestRecord | undefined)[]> {
    const lines = await this.#lines(names.map((name) => name ?? ''));
    return names.map((name, i) => {
      if (name === undefined) return undefined;
      const line = this.#unsaved.get(name) ?? lines[i];
      return line === undefined ? undefined : parse(name, line);
    });
  }

  async #lines(names: readonly string[]): Promise<(string | undefined)[]> {
    try {
      return await native().readLinks(this.#path, names);
    } catch (error) {
      // Without the records, templates are hashed again. An unreadable folder is reported when slots are made.
      if (failedWith(error, 'EACCES', 'ENOTDIR', 'ELOOP')) return [];
      throw asRootfsError(`reading ${this.#path}`, error);
    }
  }

  /** Opening the folder saves what is unsaved. A listing alone creates no clones folder. */
  async #openFolder(): Promise<void> {
    if (await isMissing(this.#folder.path)) return;
    try {
      await this.#folder.use(async () => {});
    } catch (error) {
      // A process that can only read the folder saves nothing in it.
      if (!mayNotWrite(error) && !hasCode(error, 'CLOSED')) this.#warn(error);
    }
  }

  async #saveAll(): Promise<void> {
    for (const [name, line] of this.#unsaved) {
      this.#unsaved.delete(name);
      try {
        await this.#save(name, line);
      } catch (error) {
        this.#warn(error);
      }
    }
  }

  async #save(name: string, line: string): Promise<void> {
    const path = `${this.#path}/${name}`;
    try {
      await symlink(line, path);
    } catch (error) {
      if (failedWith(error, 'ENOENT')) {
        await makeFolders(this.#path, 0o700);
        await this.#replace(line, path);
      } else if (failedWith(error, 'EEXIST')) {
        await this.#replace(line, path);
      } else {
        throw error;
      }
    }
  }

  async #replace(line: string, path: string): Promise<void> {
    const folder = this.#folder.opened;
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

  /** Warns once, because a full disk would cause a warning for each template. */
  #warn(error: unknown): void {
    if (this.#warned) return;
    this.#warned = true;
    const { message } = asRootfsError(`writing ${this.#path}`, error) as Error;
    process.emitWarning(`digests are not kept: ${message}`, { code: 'MICROVM_ROOTFS_DIGESTS' });
  }
}
