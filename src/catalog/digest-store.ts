// Digests that outlive the process: what is known of a file in its current state, and which records may go.

import { rm } from 'node:fs/promises';
import { native } from '../addon/native.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { namesIn } from '../folder/names-in.js';
import { asRootfsError } from '../system/errors.js';
import { DigestFolder } from './digest-folder.js';
import { type DigestRecord, isOfSameBytes, type LocatedFile, recordNameOf } from './digest-record.js';
import { LegacyDigests } from './legacy-digests.js';
import { LinkedDigests } from './linked-digests.js';
import { isCatalogAway } from './template-record.js';

// Records per native call: a few milliseconds of work.
const BATCH = 256;

export class DigestStore {
  readonly linked: LinkedDigests;
  readonly #records: DigestFolder;
  readonly #legacy: LegacyDigests;

  constructor(folder: ManagedFolder) {
    this.#records = new DigestFolder(folder);
    this.linked = new LinkedDigests(folder, this.#records);
    this.#legacy = new LegacyDigests(`${folder.statePath}/digests.json`);
  }

  /** The digest of each file, if known for its current state. */
  async get(files: readonly LocatedFile[]): Promise<(string | undefined)[]> {
    const names = files.map((file) => recordNameOf(file));
    const digests = (await this.#records.read(names)).map((record, i) => {
      const { identity } = files[i] as LocatedFile;
      if (record === undefined || !isOfSameBytes(record, identity)) return undefined;
      const { ctimeNs, linkedCtimeNs } = identity;
      return record.ctimeNs === ctimeNs || record.ctimeNs === linkedCtimeNs ? record.sha256 : undefined;
    });
    for (const [i, file] of files.entries()) {
      if (digests[i] !== undefined) continue;
      const sha256 = await this.#legacy.get(file);
      if (sha256 !== undefined) await this.put(file, sha256);
      digests[i] = sha256;
    }
    return digests;
  }

  /** Adds a digest, and saves it for later processes if there is a clones folder. Failing to save is only a warning. */
  async put(file: LocatedFile, sha256: string): Promise<void> {
    const name = recordNameOf(file);
    if (name === undefined) return;
    const { sizeBytes, mtimeNs } = file.identity;
    const ctimeNs = file.identity.linkedCtimeNs ?? file.identity.ctimeNs;
    await this.#records.save(name, { sizeBytes, mtimeNs, ctimeNs, sha256, path: file.path });
  }

  /** Removes the record of a file that was replaced. */
  async forget(file: LocatedFile): Promise<void> {
    const name = recordNameOf(file);
    if (name !== undefined) await this.#records.forget(name);
  }

  /**
   * Removes the records of files that are no longer at their paths. While the template folder is missing, its records
   * stay.
   */
  async collect(): Promise<void> {
    try {
      await this.#collect();
    } catch (error) {
      throw asRootfsError(`collecting ${this.#records.path}`, error);
    }
  }

  async #collect(): Promise<void> {
    const names = await namesIn(this.#records.path);
    for (let i = 0; i < names.length; i += BATCH) {
      const batch = names.slice(i, i + BATCH);
      const records = await this.#records.read(batch);
      const paths = records.map((record) => record?.path ?? '');
      const now = await native().identities(paths);
      for (const [k, name] of batch.entries()) {
        if (await this.#isWanted(name, records[k], now[k])) continue;
        await rm(`${this.#records.path}/${name}`, { force: true, recursive: true });
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
}
