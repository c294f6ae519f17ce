// Defines an in-memory tree of files: what a folder or tar holds, and where its bytes are.
import type { FileHandle } from 'node:fs/promises';
import type { Children } from './children.js';

/** 1980-01-01: the time of files that have none in the tree. */
export const FIXED_TIME_NS = 315_532_800_000_000_000n;

export interface Attribute {
  readonly name: string;
  readonly value: Buffer;
}

/** The inode that a file gets in an image, and how many names it has there. */
export interface PlannedInode {
  readonly number: number;
  names: number;
}

/** Fields that files of every kind have. */
export interface FileFacts {
  /** Permission bits, with setuid, setgid and the sticky bit. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeNs: bigint;
  readonly attributes: readonly Attribute[];
  /** Where it goes in the image, once that is planned. In a map of all files it would hold the event loop. */
  planned?: PlannedInode | undefined;
}

export interface FolderNode extends FileFacts {
  readonly kind: 'folder';
  /** Keyed by name. A name is bytes, so it is stored as Latin-1. */
  readonly children: Children<TreeNode>;
}

export interface FileNode extends FileFacts {
  readonly kind: 'file';
  /** A tar may have it behind a later name. */
  content: FileContent;
}

interface SymlinkNode extends FileFacts {
  readonly kind: 'symlink';
  readonly target: Buffer;
}

interface DeviceNode extends FileFacts {
  readonly kind: 'character device' | 'block device';
  readonly major: number;
  readonly minor: number;
}

interface SpecialNode extends FileFacts {
  readonly kind: 'fifo' | 'socket';
}

/**
 * A file with several names is a single node object. Write out the fields of a new one: an object that is spread gets a
 * shape of its own, which takes 300 bytes.
 */
export type TreeNode = FolderNode | FileNode | SymlinkNode | DeviceNode | SpecialNode;

/** A part of a file that holds data. Everything outside the segments is zeros. */
export interface Segment {
  /** Offset in the file. */
  readonly at: number;
  readonly length: number;
  /** Offset in the source where the bytes start. */
  readonly from: number;
}

export interface FileContent {
  readonly sizeBytes: number;
  readonly segments: readonly Segment[];
  /** For separate files: many small ones can be read in one call. */
  readonly file?: { readonly path: Buffer; readonly inode: bigint };
  /** Runs `work` with the opened source of the bytes. */
  open<T>(work: (source: FileHandle) => Promise<T>): Promise<T>;
  /** The error for a source that ends before its last segment. */
  endedEarly(): Error;
}

/** The contents of an empty file. */
export const EMPTY: FileContent = {
  sizeBytes: 0,
  segments: [],
  open: () => Promise.reject(new Error('an empty file is not read')),
  endedEarly: () => new Error('an empty file ended early'),
};

/** Fills `buffer` with the file's bytes, starting at `at`. */
export async function readContent(
  content: FileContent,
  source: FileHandle,
  at: number,
  buffer: Buffer,
): Promise<void> {
  const { segments } = content;
  const end = at + buffer.length;
  let filledTo = at;
  for (let i = firstEndingAfter(segments, at); i < segments.length; i++) {
    const segment = segments[i] as Segment;
    if (segment.at >= end) break;
    const from = Math.max(segment.at, at);
    const to = Math.min(segment.at + segment.length, end);
    buffer.fill(0, filledTo - at, from - at);
    for (let done = from; done < to; ) {
      const position = segment.from + (done - segment.at);
      const { bytesRead } = await source.read(buffer, done - at, to - done, position);
      if (bytesRead === 0) throw content.endedEarly();
      done += bytesRead;
    }
    filledTo = to;
  }
  buffer.fill(0, filledTo - at);
}

function firstEndingAfter(segments: readonly Segment[], at: number): number {
  let [low, high] = [0, segments.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    const { at: start, length } = segments[middle] as Segment;
    if (start + length > at) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Formats a name or path of a tree for a message. */
export function showPath(latin1: string): string {
  return Buffer.from(latin1, 'latin1').toString('utf8');
}
