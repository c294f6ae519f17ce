// Digests that outlive the process: a record for each file.
//
//   <clonesDir>/.microvm-rootfs/digests/<file>   a symbolic link to nothing: its text is a state of the file, and its
//                                                digest
//
// A symbolic link appears, or is replaced by a rename, with its text and at once, without a flush: after a power cut it
// is there or not. All processes share the records, and reading one takes a single system call. Each has a check, so
// that nothing else is taken for one.
//
// Clones that are hardlinks change the ctime of their template when they come and go. A process that links or unlinks a
// file saves its record again, with the present ctime, if the record was of the state before its own links. What other
// processes did between is never covered: then the record is of another state, and stays as it is.

import { rename, rm, symlink, unlink } from 'node:fs/promises';
import { clearTimeout, setTimeout } from 'node:timers';
import { native } from '../addon/native.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { namesIn } from '../folder/names-in.js';
import type { OpenFolder } from '../folder/open-folder.js';
import { hasWholeSeconds } from '../image/file-times.js';
import { dropOldest } from '../system/drop-oldest.js';
import { asRootfsError, failedWith, hasCode, mayNotWrite } from '../system/errors.js';
import { isMissing } from '../system/is-missing.js';
import { makeFolders } from '../system/make-folders.js';
import { type DigestRecord, type LocatedFile, parse, recordNameOf, serialize } from './digest-record.js';
import { LegacyDigests } from './legacy-digests.js';
import { isCatalogAway } from './template-record.js';

const LINKED_LIMIT = 10_000;

// Records per native call: a few milliseconds of work.
const BATCH = 256;

/** Records of files that were linked are saved so much later, for many links at once. */
const LINKS_SAVED_AFTER_MS = 20;

/** How long another process may take to do that. */
const LINKS_SAVED_WITHIN_MS = 1000;

/** A record that was saved for a linked file. */
interface LinkedRecord {
  /** The ctime from before all links of this process. */
  readonly before: bigint;
  readonly ctimeNs: bigint;
}

export class DigestStore {
  readonly #folder: ManagedFolder;
  readonly #path: string;
  readonly #legacy: LegacyDigests;
  /** What was learned while there was no clones folder, for example when listing stacks. */
  readonly #unsaved = new Map<string, string>();
  #staged = 0;
  #warned = false;
  #linksSeen = 0;
  #linksTimer: NodeJS.Timeout | undefined;
  #savingLinks: Promise<void> = Promise.resolve();
  readonly #linked = new Map<string, LinkedRecord>();

  constructor(folder: ManagedFolder) {
    this.#folder = folder;
    this.#path = `${folder.statePath}/digests`;
    this.#legacy = new LegacyDigests(`${folder.statePath}/digests.json`);
    folder.onOpened(() => this.#saveAll());
    folder.onUsed(() => this.#linksMayHaveChanged());
    folder.onIdle((open) => this.#saveLinks(open));
  }

  /** The digest of each file, if known for its current state. */
  async get(files: readonly LocatedFile[]): Promise<(string | undefined)[]> {
    const names = files.map((file) => recordNameOf(file));
    const digests = (await this.#read(names)).map((record, i) => {
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

  /**
   * Adds a digest, and saves it for later processes if there is a clones folder. Failing to save is a warning, not an
   * error.
   */
  async put(file: LocatedFile, sha256: string): Promise<void> {
    const name = recordNameOf(file);
    if (name === undefined) return;
    const { sizeBytes, mtimeNs } = file.identity;
    const ctimeNs = file.identity.linkedCtimeNs ?? file.identity.ctimeNs;
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
   * Whether another process may be about to save the digest of this state: the file's ctime has just changed, and
   * nothing else since the digest was saved.
   */
  async mayBeSavedSoon(file: LocatedFile, now = Date.now()): Promise<boolean> {
    const { identity } = file;
    const ageMs = now - Number((identity.linkedCtimeNs ?? identity.ctimeNs) / 1_000_000n);
    if (Math.abs(ageMs) > LINKS_SAVED_WITHIN_MS) return false;
    const [record] = await this.#read([recordNameOf(file)]);
    return record !== undefined && isOfSameBytes(record, identity);
  }

  #linksMayHaveChanged(): void {
    if (this.#linksTimer !== undefined) return;
    if (native().filesLinkedSince(this.#linksSeen) === undefined) return;
    this.#linksTimer = setTimeout(() => {
      const folder = this.#folder.opened;
      if (folder !== undefined) void this.#saveLinks(folder);
      else this.#linksTimer = undefined;
    }, LINKS_SAVED_AFTER_MS);
  }

  #saveLinks(folder: OpenFolder): Promise<void> {
    clearTimeout(this.#linksTimer);
    this.#linksTimer = undefined;
    this.#savingLinks = this.#savingLinks
      .then(() => this.#saveLinksNow(folder))
      .catch((error) => this.#warn(error));
    return this.#savingLinks;
  }

  async #saveLinksNow(folder: OpenFolder): Promise<void> {
    const linked = native().filesLinkedSince(this.#linksSeen);
    if (linked === undefined) return;
    const { seen, files } = linked;
    this.#linksSeen = seen;
    // Within such a second, a write after the link leaves the same ctime.
    const changed = files.flatMap((identity) => {
      const { filesystem, ctimeNs, linkedCtimeNs = ctimeNs } = identity;
      const name = recordNameOf({ path: '', identity, filesystem });
      const isFine = !hasWholeSeconds({ ctimeNs: linkedCtimeNs });
      return name !== undefined && isFine ? [{ name, identity, ctimeNs, linkedCtimeNs }] : [];
    });
    const records = await this.#read(changed.map(({ name }) => name));
    for (const [i, { name, identity, ctimeNs: before, linkedCtimeNs: ctimeNs }] of changed.entries()) {
      const record = records[i];
      if (record === undefined || !isOfSameBytes(record, identity)) continue;
      const saved = this.#linked.get(name);
      const isSavedByUs = saved?.before === before && saved.ctimeNs === record.ctimeNs;
      if (record.ctimeNs !== before && !isSavedByUs) continue;
      await this.#replace(serialize(name, { ...record, ctimeNs }), `${this.#path}/${name}`, folder);
      this.#linked.set(name, { before, ctimeNs });
      dropOldest(this.#linked, LINKED_LIMIT);
    }
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

  /** Warns once, because a full disk would cause a warning for each template. */
  #warn(error: unknown): void {
    if (this.#warned) return;
    this.#warned = true;
    const { message } = asRootfsError(`writing ${this.#path}`, error) as Error;
    process.emitWarning(`digests are not kept: ${message}`, { code: 'MICROVM_ROOTFS_DIGESTS' });
  }
}

function isOfSameBytes(record: DigestRecord, { sizeBytes, mtimeNs }: LocatedFile['identity']): boolean {
  return record.sizeBytes === sizeBytes && record.mtimeNs === mtimeNs;
}
