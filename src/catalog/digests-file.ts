// Reads the file in which versions before 0.2 kept all digests. It is never written: entries for unchanged files move
// to the store.

import type { Identity } from '../addon/identity.js';
import { native } from '../addon/native.js';
import { readOwnFile } from '../folder/state-files.js';
import { asRootfsError, failedWith } from '../system/errors.js';
import type { LocatedFile } from './digest-record.js';
import { hasWholeSeconds } from './file-times.js';

const VERSION = 1;
const FILE_BYTES_LIMIT = 4 * 1024 * 1024;

export interface Entry {
  readonly identity: Omit<Identity, 'mount'>;
  readonly sha256: string;
}

export class DigestsFile {
  readonly #path: string;
  #entries: Promise<Map<string, Entry>> | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  /** The digest of a file, if it was recorded for the file's exact current state. */
  async get({ identity, filesystem }: LocatedFile): Promise<string | undefined> {
    this.#entries ??= load(this.#path).catch((error: unknown) => {
      this.#entries = undefined; // the next one tries again
      throw error;
    });
    const entries = await this.#entries;
    // Its keys are device and inode numbers, which identify a file no better than times do.
    if (entries.size === 0 || filesystem === '' || hasWholeSeconds(identity)) return undefined;
    const entry = entries.get(keyOf(identity));
    if (entry === undefined) return undefined;
    const { sizeBytes, mtimeNs, ctimeNs } = entry.identity;
    const same =
      sizeBytes === identity.sizeBytes && mtimeNs === identity.mtimeNs && ctimeNs === identity.ctimeNs;
    return same ? entry.sha256 : undefined;
  }
}

async function load(path: string): Promise<Map<string, Entry>> {
  try {
    const text = await readOwnFile(path, FILE_BYTES_LIMIT);
    const entries = text === undefined ? [] : (parse(text) ?? []);
    return new Map(entries.map((entry) => [keyOf(entry.identity), entry]));
  } catch (error) {
    // Without it, templates are hashed again.
    if (failedWith(error, 'EACCES', 'EIO')) return new Map();
    throw asRootfsError(`reading ${path}`, error);
  }
}

function keyOf({ device, inode }: Pick<Identity, 'device' | 'inode'>): string {
  return `${device}:${inode}`;
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

/** Undefined for anything else: torn, damaged, or of another version. */
export function parse(text: string): Entry[] | undefined {
  try {
    const [head = '', rows = ''] = text.split('\n');
    const { version, check } = JSON.parse(head) as Record<string, unknown>;
    if (version !== VERSION || check !== native().sha256(rows)) return undefined;
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
