// Keeps the digests of templates whose clones are hardlinks. Such clones change the ctime of their template when they
// come and go. A process that links or unlinks a file saves its record again, with the present ctime, if the record was
// of the state before its own links. What other processes did between is never covered: then the record is of another
// state, and stays as it is.

import { clearTimeout, setTimeout } from 'node:timers';
import { native } from '../addon/native.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import type { OpenFolder } from '../folder/open-folder.js';
import { hasWholeSeconds } from '../image/file-times.js';
import { dropOldest } from '../system/drop-oldest.js';
import type { DigestFolder } from './digest-folder.js';
import { isOfSameBytes, type LocatedFile, recordNameOf } from './digest-record.js';

const SAVED_LIMIT = 10_000;

/** How long after a link its record is saved, for many links at once. */
const SAVED_AFTER_MS = 20;

/** How long another process may take to save the record after its link. */
const SAVED_WITHIN_MS = 1000;

/** A record that was saved for a linked file. */
interface SavedRecord {
  /** The ctime from before all links of this process. */
  readonly before: bigint;
  readonly ctimeNs: bigint;
}

export class LinkedDigests {
  readonly #folder: ManagedFolder;
  readonly #records: DigestFolder;
  #linksSeen = 0;
  #timer: NodeJS.Timeout | undefined;
  #saving: Promise<void> = Promise.resolve();
  readonly #saved = new Map<string, SavedRecord>();

  constructor(folder: ManagedFolder, records: DigestFolder) {
    this.#folder = folder;
    this.#records = records;
    folder.onUsed(() => this.#mayHaveChanged());
    folder.onIdle((open) => this.#save(open));
  }

  /**
   * Whether another process may be about to save the digest of this state: the file's ctime has just changed, and
   * nothing else since the digest was saved.
   */
  async mayBeSavedSoon(file: LocatedFile): Promise<boolean> {
    const { identity } = file;
    const ageMs = Date.now() - Number((identity.linkedCtimeNs ?? identity.ctimeNs) / 1_000_000n);
    if (Math.abs(ageMs) > SAVED_WITHIN_MS) return false;
    const [record] = await this.#records.read([recordNameOf(file)]);
    return record !== undefined && isOfSameBytes(record, identity);
  }

  #mayHaveChanged(): void {
    if (this.#timer !== undefined) return;
    if (native().filesLinkedSince(this.#linksSeen) === undefined) return;
    this.#timer = setTimeout(() => {
      const folder = this.#folder.opened;
      if (folder !== undefined) void this.#save(folder);
      else this.#timer = undefined;
    }, SAVED_AFTER_MS);
  }

  #save(folder: OpenFolder): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#saving = this.#saving.then(() => this.#saveNow(folder)).catch((error) => this.#records.warn(error));
    return this.#saving;
  }

  async #saveNow(folder: OpenFolder): Promise<void> {
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
    const records = await this.#records.read(changed.map(({ name }) => name));
    for (const [i, { name, identity, ctimeNs: before, linkedCtimeNs: ctimeNs }] of changed.entries()) {
      const record = records[i];
      if (record === undefined || !isOfSameBytes(record, identity)) continue;
      const saved = this.#saved.get(name);
      const isSavedByUs = saved?.before === before && saved.ctimeNs === record.ctimeNs;
      if (record.ctimeNs !== before && !isSavedByUs) continue;
      await this.#records.replace(name, { ...record, ctimeNs }, folder);
      this.#saved.set(name, { before, ctimeNs });
      dropOldest(this.#saved, SAVED_LIMIT);
    }
  }
}
