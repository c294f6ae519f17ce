// Reads the file in which versions before 0.1.0 kept all digests. It is never written: entries for unchanged files move
// to the store.

import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Identity } from '../addon/identity.js';
import { native } from '../addon/native.js';
import { readOwnFile } from '../folder/state-files.js';
import { hasWholeSeconds } from '../image/file-times.js';
import { asRootfsError, failedWith } from '../system/errors.js';
import { isSha256 } from '../system/sha256.js';
import type { LocatedFile } from './digest-record.js';

const VERSION = 1;
const FILE_BYTES_LIMIT = 4 * 1024 * 1024;

export interface Entry {
  readonly identity: Omit<Identity, 'mount'>;
  readonly sha256: string;
}

export class LegacyDigests {
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
    return (text === undefined ? undefined : await parse(text)) ?? new Map();
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

// Characters of the rows: about a millisecond of work.
const SLICE_CHARACTERS = 32 * 1024;

/** By {@link keyOf}. Undefined for anything else: torn, damaged, or of another version. */
export async function parse(text: string): Promise<Map<string, Entry> | undefined> {
  try {
    const [head = '', rows = ''] = text.split('\n');
    const { version, check } = JSON.parse(head) as Record<string, unknown>;
    if (version !== VERSION || check !== native().sha256(rows)) return undefined;
    if (rows.length < 2 || !rows.startsWith('[') || !rows.endsWith(']')) return undefined;
    const entries = new Map<string, Entry>();
    for (let at = 1; at < rows.length - 1; ) {
      // No string of ours has a bracket.
      const between = rows.indexOf('],[', at + SLICE_CHARACTERS);
      const end = between === -1 ? rows.length - 1 : between + 1;
      for (const row of JSON.parse(`[${rows.slice(at, end)}]`) as Row[]) {
        const entry = entryOf(row);
        if (!isEntry(entry)) return undefined;
        entries.set(keyOf(entry.identity), entry);
      }
      at = end + 1;
      await nextTurn();
    }
    return entries;
  } catch {
    return undefined;
  }
}

function entryOf([device, inode, sizeBytes, mtimeNs, ctimeNs, links, sha256]: Row): Entry {
  return {
    identity: {
      device: BigInt(device),
      inode: BigInt(inode),
      sizeBytes,
      mtimeNs: BigInt(mtimeNs),
      ctimeNs: BigInt(ctimeNs),
      links,
    },
    sha256,
  };
}

function isEntry({ identity: { sizeBytes, links }, sha256 }: Entry): boolean {
  return Number.isSafeInteger(sizeBytes) && Number.isSafeInteger(links) && isSha256(sha256);
}
