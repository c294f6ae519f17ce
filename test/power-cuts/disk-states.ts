// What a VM's disk can hold, and whether an image is exactly that.
import { readFile } from 'node:fs/promises';
import { sha256 } from '../fixtures/files.js';

/** A VM's disk: of which template, how long, and what the VM has written to it. */
export interface DiskState {
  readonly sha256: string;
  readonly sizeBytes: number;
  /** The number that the VM wrote; undefined if it wrote nothing. */
  readonly mark: number | undefined;
}

export type StateKey = string;

/** No slot. */
export const ABSENT: StateKey = 'absent';

export function keyOf({ sha256, sizeBytes, mark }: DiskState): StateKey {
  return `${sha256.slice(0, 8)}, ${sizeBytes} bytes${mark === undefined ? '' : `, mark ${mark}`}`;
}

/** Every image that there can be, by its template's digest and its size, before a VM writes to it. */
export class PristineImages {
  readonly #images = new Map<string, { bytes: Buffer; digest: string }>();

  /** An image of the template with this digest; or a template, if none is given. Returns the image's digest. */
  add(bytes: Buffer, template?: string): string {
    const digest = sha256(bytes);
    this.#images.set(`${template ?? digest}-${bytes.length}`, { bytes, digest });
    return digest;
  }

  get(template: string, sizeBytes: number): { bytes: Buffer; digest: string } | undefined {
    return this.#images.get(`${template}-${sizeBytes}`);
  }
}

const MARK_BYTES = 512;

export function markBytes(mark: number): Buffer {
  return Buffer.alloc(MARK_BYTES, `written by its VM: ${mark}; `);
}

/** Every byte counts: undefined if the image is not a pristine one, apart from one mark where marks are written. */
export async function readState(
  image: string,
  template: string,
  pristine: PristineImages,
  markOffset: number,
): Promise<DiskState | undefined> {
  const bytes = await readFile(image).catch(() => undefined);
  if (bytes === undefined) return undefined;
  const expected = pristine.get(template, bytes.length);
  if (expected === undefined) return undefined;
  const mark = markIn(bytes.subarray(markOffset, markOffset + MARK_BYTES));
  if (mark !== undefined) expected.bytes.copy(bytes, markOffset, markOffset, markOffset + MARK_BYTES);
  return sha256(bytes) === expected.digest ? { sha256: template, sizeBytes: bytes.length, mark } : undefined;
}

function markIn(bytes: Buffer): number | undefined {
  const number = /^written by its VM: (\d+); /.exec(bytes.toString('latin1'))?.[1];
  return number !== undefined && markBytes(Number(number)).equals(bytes) ? Number(number) : undefined;
}
