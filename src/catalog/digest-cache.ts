// Digests that outlive the process, by the state of the file that they are of. The file is replaced as a whole, so a reader in any process
// finds one version or another; of two processes that write at once one's news may be lost, which costs one more hash.

import { type Identity, sameState } from '../addon/identity.js';
import { native } from '../addon/native.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { readOwnFile, replaceOwnFile } from '../folder/state-files.js';
import { dropOldest } from '../system/drop-oldest.js';
import { asRootfsError, failedWith, mayNotWrite, RootfsError } from '../system/errors.js';
import { isMissing } from '../system/is-missing.js';

const FILE = 'digests.json';
const VERSION = 1;
const ENTRY_LIMIT = 4096;
// Far above what that many entries take: a larger file is not ours.
const FILE_BYTES_LIMIT = 4 * 1024 * 1024;

interface Entry {
  readonly identity: Identity;
  readonly sha256: string;
}

export class DigestCache {
  readonly #folder: ManagedFolder;
  readonly #path: string;
  #loaded: Promise<Map<string, Entry>> | undefined;
  #saving: Promise<void> = Promise.resolve();
  /** The save that comes after the one under way, for all who have news meanwhile. */
  #next: Promise<void> | undefined;
  #unsaved = false;

  constructor(folder: ManagedFolder) {
    this.#folder = folder;
    this.#path = `${folder.statePath}/${FILE}`;
    // What was learnt before, say by listing stacks, is kept as well.
    folder.onOpened(async () => {
      if (this.#unsaved) await this.#saveInTurn();
    });
  }

  async get(identity: Identity): Promise<string | undefined> {
    const entry = (await this.#entries()).get(keyOf(identity));
    return entry !== undefined && sameState(entry.identity, identity) ? entry.sha256 : undefined;
  }

  /** Adds a digest, also for later processes if there is a clones folder. That it could not be saved is a warning, not an error. */
  async put(identity: Identity, sha256: string): Promise<void> {
    remember(await this.#entries(), { identity, sha256 });
    this.#unsaved = true;
    await this.#openFolder();
    if (this.#unsaved) await this.#saveInTurn();
  }

  /** Opening it saves what is unsaved, so no save may ever wait for that itself. For a listing alone no clones folder is made. */
  async #openFolder(): Promise<void> {
    if (this.#folder.opened !== undefined || (await isMissing(this.#folder.path))) return;
    try {
      await this.#folder.use(async () => {});
    } catch (error) {
      // Who may only look at the folder has nothing to keep there.
      if (!mayNotWrite(error) && !(error instanceof RootfsError && error.code === 'CLOSED'))
        this.#warn(error);
    }
  }

  /** Read once; a failure to read is not kept, the disk may be well again. */
  #entries(): Promise<Map<string, Entry>> {
    this.#loaded ??= load(this.#path).catch((error) => {
      this.#loaded = undefined;
      throw error;
    });
    return this.#loaded;
  }

  #saveInTurn(): Promise<void> {
    this.#next ??= this.#saving.then(() => {
      this.#next = undefined;
      return this.#save();
    });
    this.#saving = this.#next;
    return this.#next;
  }

  async #save(): Promise<void> {
    const folder = this.#folder.opened;
    if (folder === undefined) return;
    this.#unsaved = false;
    try {
      const entries = await load(this.#path);
      for (const entry of (await this.#loaded) ?? []) remember(entries, entry[1]);
      await replaceOwnFile(this.#path, serialize([...entries.values()]), folder.sessionPath);
    } catch (error) {
      this.#warn(error);
    }
  }

  #warn(error: unknown): void {
    const { message } = asRootfsError(`writing ${this.#path}`, error) as Error;
    process.emitWarning(`digests are not kept: ${message}`, { code: 'MICROVM_ROOTFS_DIGESTS' });
  }
}

function keyOf({ device, inode }: Identity): string {
  return `${device}:${inode}`;
}

/** Newest last; the oldest go when there are too many. */
function remember(entries: Map<string, Entry>, entry: Entry): void {
  const key = keyOf(entry.identity);
  entries.delete(key);
  entries.set(key, entry);
  dropOldest(entries, ENTRY_LIMIT);
}

type Row = [
  device: string,
  inode: string,
  sizeBytes: number,
  mtimeNs: string,
  ctimeNs: string,
  links: number,
  sha256: string,
];

export function serialize(entries: readonly Entry[]): string {
  const rows = JSON.stringify(
    entries.map(
      ({ identity: i, sha256 }): Row => [
        `${i.device}`,
        `${i.inode}`,
        i.sizeBytes,
        `${i.mtimeNs}`,
        `${i.ctimeNs}`,
        i.links,
        sha256,
      ],
    ),
  );
  return `${JSON.stringify({ version: VERSION, check: checksum(rows) })}\n${rows}\n`;
}

/** Undefined for anything that {@link serialize} did not write: torn, damaged, of another version. */
export function parse(text: string): Entry[] | undefined {
  try {
    const [head = '', rows = ''] = text.split('\n');
    const { version, check } = JSON.parse(head) as Record<string, unknown>;
    if (version !== VERSION || check !== checksum(rows)) return undefined;
    const entries = (JSON.parse(rows) as Row[]).map(
      ([device, inode, sizeBytes, mtimeNs, ctimeNs, links, sha256]) => ({
        identity: {
          device: BigInt(device),
          inode: BigInt(inode),
          sizeBytes,
          mtimeNs: BigInt(mtimeNs),
          ctimeNs: BigInt(ctimeNs),
          links,
        },
        sha256,
      }),
    );
    return entries.every(isEntry) ? entries : undefined;
  } catch {
    return undefined;
  }
}

function isEntry({ identity: { sizeBytes, links }, sha256 }: Entry): boolean {
  return Number.isSafeInteger(sizeBytes) && Number.isSafeInteger(links) && /^[0-9a-f]{64}$/.test(sha256);
}

function checksum(rows: string): string {
  return native().sha256(rows);
}

async function load(path: string): Promise<Map<string, Entry>> {
  const entries = new Map<string, Entry>();
  try {
    const text = await readOwnFile(path, FILE_BYTES_LIMIT);
    for (const entry of parse(text ?? '') ?? []) remember(entries, entry);
  } catch (error) {
    // Without it templates are hashed again; a folder that cannot be read shows itself where slots are made.
    if (!failedWith(error, 'EACCES')) throw asRootfsError(`reading ${path}`, error);
  }
  return entries;
}
