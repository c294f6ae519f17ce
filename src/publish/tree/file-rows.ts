// The facts of the files of a folder, many in one call.
import { type FileTexts, native } from '../../addon/native.js';
import { Pause } from '../../system/pause.js';
import { SCAN_ABOVE_BYTES } from '../ext4/data-runs.js';
import { isOfTheTree, ofTheTree } from './attributes.js';
import type { Attribute, FileFacts, Segment, TreeNode } from './file-tree.js';
import { bytesOf } from './folder-files.js';
import { layerMarks } from './layer-marks.js';

const TYPE_MASK = 0xf000;
const KINDS: Readonly<Record<number, TreeNode['kind']>> = {
  4096: 'fifo',
  8192: 'character device',
  16384: 'folder',
  24576: 'block device',
  32768: 'file',
  40960: 'symlink',
  49152: 'socket',
};

// Shared by all files that have none.
const NO_ATTRIBUTES: readonly Attribute[] = [];
const NONE: Attributes = { all: NO_ATTRIBUTES, unreadable: undefined };
const NO_BYTES = Buffer.alloc(0);

// How many numbers the addon gives for each file, and which of them are the blocks and the names.
const NUMBERS = 14;
const BLOCKS = 4;
const LINKS = 13;

export interface UnreadableAttribute {
  readonly name: string;
  readonly errno: number;
}

/** The facts of a file, and what they say of where it lies. */
export interface FileRow {
  readonly kind: TreeNode['kind'];
  readonly facts: FileFacts;
  /** Attributes that are no part of the tree, but of a layer. */
  readonly marks: readonly Attribute[];
  /** An attribute of the tree that the file system lists and does not give. */
  readonly unreadable: UnreadableAttribute | undefined;
  readonly sizeBytes: number;
  readonly blocks: number;
  readonly device: bigint;
  readonly inode: bigint;
  /** Whether it has more names than one. */
  readonly isLinked: boolean;
  readonly major: number;
  readonly minor: number;
  readonly target: Buffer;
  /** Feeds the mark of the tree. */
  readonly state: string;
}

interface Attributes {
  readonly all: readonly Attribute[];
  readonly unreadable: UnreadableAttribute | undefined;
}

/** The facts of many files, in one call. */
export async function readRows(paths: readonly string[]): Promise<FileRow[]> {
  const [numbers, texts] = await native().fileFacts(paths.map(bytesOf));
  const all = new BigInt64Array(numbers);
  return paths.map((_, i) => rowOf(all.subarray(i * NUMBERS, (i + 1) * NUMBERS), texts[i] ?? []));
}

function rowOf(numbers: BigInt64Array, [target, ...attributes]: FileTexts): FileRow {
  const at = (i: number) => numbers[i] as bigint;
  const { all, unreadable } = attributes.length === 0 ? NONE : pairs(attributes);
  const mode = Number(at(0));
  return {
    kind: KINDS[mode & TYPE_MASK] as TreeNode['kind'],
    facts: {
      mode: mode & 0o7777,
      uid: Number(at(1)),
      gid: Number(at(2)),
      mtimeNs: at(5) * 1_000_000_000n + at(6),
      attributes: all.length === 0 ? NO_ATTRIBUTES : ofTheTree(all),
    },
    marks: all.length === 0 ? NO_ATTRIBUTES : layerMarks(all),
    unreadable,
    sizeBytes: Number(at(3)),
    blocks: Number(at(BLOCKS)),
    device: at(9),
    inode: at(10),
    isLinked: at(LINKS) > 1n,
    major: Number(at(11)),
    minor: Number(at(12)),
    target: (target as Buffer | undefined) ?? NO_BYTES,
    // A file system that lays out what was written earlier does not change the tree, so the blocks are left out. A name
    // that is made or removed outside of it does not, either, but changes ctime, without which a write may not be seen.
    state: numbers.filter((_, i) => i !== BLOCKS && i !== LINKS).join(' '),
  };
}

function pairs(attributes: readonly (Buffer | number)[]): Attributes {
  const all: Attribute[] = [];
  let unreadable: UnreadableAttribute | undefined;
  for (let i = 0; i + 1 < attributes.length; i += 2) {
    const name = (attributes[i] as Buffer).toString('latin1');
    const value = attributes[i + 1] as Buffer | number;
    if (typeof value !== 'number') all.push({ name, value });
    else if (isOfTheTree(name)) unreadable = { name, errno: value };
  }
  return { all, unreadable };
}

/** Where a large file holds data. Undefined if it is all data, or small: its holes are found when it is read. */
export async function rangesOf(
  path: string,
  { kind, sizeBytes, blocks }: FileRow,
): Promise<Segment[] | undefined> {
  if (kind !== 'file' || sizeBytes <= SCAN_ABOVE_BYTES || blocks * 512 >= sizeBytes) return undefined;
  const ends = await native().dataRanges(bytesOf(path), sizeBytes);
  const segments: Segment[] = [];
  await new Pause().inRanges(0, ends.length / 2, (first, last) => {
    for (let i = first; i < last; i++) {
      const [at, end] = [ends[2 * i] as number, ends[2 * i + 1] as number];
      segments.push({ at, length: end - at, from: at });
    }
  });
  return segments;
}
