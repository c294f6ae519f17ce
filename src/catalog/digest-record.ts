// Defines the record of a file with a known digest: a name that identifies the file, and a line with the state that the
// digest is valid for.

import type { Identity } from '../addon/identity.js';
import { native } from '../addon/native.js';
import { hasWholeSeconds } from '../image/file-times.js';
import { bootId } from '../system/boot-id.js';

/** A file as it was found: its path, its state, and the name of its filesystem (see {@link OpenedSource}). */
export interface LocatedFile {
  readonly path: string;
  readonly identity: Identity;
  readonly filesystem: string;
}

export interface DigestRecord {
  readonly sizeBytes: number;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  readonly sha256: string;
  /** The file's path when its digest was computed. Empty if the path was too long. */
  readonly path: string;
}

const VERSION = '1';
const NAME_DIGITS = 40;
const CHECK_DIGITS = 16;

// XFS stores at most 1,024 bytes in a symbolic link.
const PATH_BYTES_LIMIT = 700;

/**
 * The name of a file's record. Undefined if the file cannot be told apart from a later one, and then no record is kept.
 * Device, mount and inode numbers are reused.
 */
export function recordNameOf(
  { identity, filesystem }: LocatedFile,
  boot: string | undefined = bootId(),
): string | undefined {
  const { device, inode, mount } = identity;
  // An image built with fixed times can have a twin: same UUID, same inode and same times, but other bytes.
  const lasting = filesystem !== '' && !hasWholeSeconds(identity);
  if (!lasting && (mount === 0n || boot === undefined)) return undefined;
  const place = lasting ? filesystem : `boot:${boot} ${mount} ${device}`;
  return native().sha256(`${place} ${inode}`).slice(0, NAME_DIGITS);
}

export function serialize(name: string, { sizeBytes, mtimeNs, ctimeNs, sha256, path }: DigestRecord): string {
  const kept = Buffer.byteLength(path) <= PATH_BYTES_LIMIT ? path : '';
  const fields = [VERSION, sizeBytes, mtimeNs, ctimeNs, sha256];
  return [...fields, checkOf(name, [...fields, kept].join(' ')), kept].join(' ');
}

/** Undefined for anything that {@link serialize} did not make under this name. */
export function parse(name: string, line: string): DigestRecord | undefined {
  const [, fields, sizeBytes = '', mtimeNs = '', ctimeNs = '', sha256 = '', check, path = ''] =
    /^(1 ([0-9]{1,16}) (-?[0-9]{1,29}) (-?[0-9]{1,29}) ([0-9a-f]{64})) ([0-9a-f]{16}) (.*)$/s.exec(line) ??
    [];
  if (fields === undefined || check !== checkOf(name, `${fields} ${path}`)) return undefined;
  return {
    sizeBytes: Number(sizeBytes),
    mtimeNs: BigInt(mtimeNs),
    ctimeNs: BigInt(ctimeNs),
    sha256,
    path,
  };
}

/** Whether a file has the size and mtime of the record. A writer can put mtime back, so ctime must be compared too. */
export function isOfSameBytes(record: DigestRecord, { sizeBytes, mtimeNs }: Identity): boolean {
  return record.sizeBytes === sizeBytes && record.mtimeNs === mtimeNs;
}

function checkOf(name: string, text: string): string {
  return native().sha256(`${name} ${text}`).slice(0, CHECK_DIGITS);
}
