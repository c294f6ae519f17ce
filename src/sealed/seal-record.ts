// Reads and writes the record beside a sealed image: what the image is of, and the state of its file when it was
// sealed.
import { join } from 'node:path';
import type { Identity } from '../addon/identity.js';
import { type FileState, isFileState, type TemplateRecord } from '../catalog/template-record.js';
import { readOwnFile } from '../folder/state-files.js';

export const RECORD_FILE = 'record.json';
export const RECORD_VERSION = 1;
const RECORD_BYTES_LIMIT = 64 * 1024;

export interface SealRecord extends TemplateRecord {
  readonly version: number;
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly image: FileState;
  readonly extents?: number;
  /** Bytes on disk that no other file shared when it was sealed. */
  readonly ownBytes?: number;
}

/** A packed image has few extents. Its folder stands beside the plain image's until that one is removed. */
export type PackState = 'plain' | 'packed';

const PACKED_SUFFIX = '-packed';

/** The name of a sealed image's folder. */
export function keyOf(sha256: string, sizeBytes: number, packing: PackState = 'plain'): string {
  return `${sha256}-${sizeBytes}${packing === 'packed' ? PACKED_SUFFIX : ''}`;
}

export function partsOf(key: string): { sha256: string; sizeBytes: number; packed: boolean } | undefined {
  const [, sha256, sizeBytes, suffix] = /^([0-9a-f]{64})-([0-9]+)(-packed)?$/.exec(key) ?? [];
  if (sha256 === undefined) return undefined;
  return { sha256, sizeBytes: Number(sizeBytes), packed: suffix === PACKED_SUFFIX };
}

/** Whether the image is unchanged since it was sealed. */
export function isSealed(record: SealRecord, key: string, identity: Identity): boolean {
  return (
    isSealedFile(record, key, identity) &&
    record.image.ctimeNs === `${identity.ctimeNs}` &&
    identity.links === 1
  );
}

/** The same where a backup may have made and removed links to it: only its bytes tell whether it is unchanged. */
export function isSealedFile({ sha256, sizeBytes, image }: SealRecord, key: string, file: Identity): boolean {
  return (
    [keyOf(sha256, sizeBytes), keyOf(sha256, sizeBytes, 'packed')].includes(key) &&
    image.inode === `${file.inode}` &&
    image.sizeBytes === file.sizeBytes &&
    image.mtimeNs === `${file.mtimeNs}`
  );
}

/**
 * Rejects with the system error code if the record exists but cannot be read. A failing disk or too many open files is
 * no reason to distrust it.
 */
export async function readRecord(path: string): Promise<SealRecord | undefined> {
  return parseRecord((await readOwnFile(join(path, RECORD_FILE), RECORD_BYTES_LIMIT)) ?? '');
}

/** Undefined for anything that this library did not write. */
export function parseRecord(text: string): SealRecord | undefined {
  try {
    const record = JSON.parse(text) as SealRecord;
    const whole =
      record.version === RECORD_VERSION &&
      typeof record.templatePath === 'string' &&
      partsOf(keyOf(record.sha256, record.sizeBytes)) !== undefined &&
      Number.isSafeInteger(record.sizeBytes) &&
      (record.extents === undefined || Number.isSafeInteger(record.extents)) &&
      (record.ownBytes === undefined || Number.isSafeInteger(record.ownBytes)) &&
      isFileState(record.template) &&
      isFileState(record.image);
    return whole ? record : undefined;
  } catch {
    return undefined; // no JSON, or no object where one belongs
  }
}
