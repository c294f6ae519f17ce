// The files of a folder while it is read as a tree. All of them are in memory at once, so each is small.
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { failedWith, RootfsError } from '../../system/errors.js';
import type { FileContent, Segment, TreeNode } from './file-tree.js';

const READ_ONLY = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** How messages name the tree and what is in it. */
export interface TreeName {
  readonly source: string;
  show(path: string): string;
}

function changedWhileRead({ source, show }: TreeName, path: string, cause?: unknown): RootfsError {
  return new RootfsError(
    'SOURCE_CHANGED',
    `${show(path)} changed while it was read: stop whatever writes to it, and publish again`,
    { path: source, cause },
  );
}

/** For reading what was there a moment ago: a file that is gone, or has another kind now, was changed. */
export async function readingOf<T>(name: TreeName, path: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (failedWith(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) throw changedWhileRead(name, path, error);
    if (!failedWith(error, 'ENAMETOOLONG')) throw error;
    throw new RootfsError(
      'IMAGE_INVALID',
      `${name.source} holds files whose paths have more bytes than Linux takes in one call (4,095): publish a ` +
        'tar of it',
      { path: name.source, cause: error },
    );
  }
}

/** The contents of a file of a folder. */
export class FolderFile implements FileContent {
  readonly sizeBytes: number;
  readonly #name: TreeName;
  readonly #path: string;
  readonly #inode: bigint;
  /** Undefined if it is all data. */
  readonly #ranges: readonly Segment[] | undefined;

  constructor(
    name: TreeName,
    path: string,
    sizeBytes: number,
    inode: bigint,
    ranges: readonly Segment[] | undefined,
  ) {
    this.#name = name;
    this.#path = path;
    this.sizeBytes = sizeBytes;
    this.#inode = inode;
    this.#ranges = ranges;
  }

  get segments(): readonly Segment[] {
    return this.#ranges ?? [{ at: 0, length: this.sizeBytes, from: 0 }];
  }

  get file() {
    return { path: bytesOf(this.#path), inode: this.#inode };
  }

  endedEarly(): Error {
    return changedWhileRead(this.#name, this.#path);
  }

  async open<T>(work: (source: FileHandle) => Promise<T>): Promise<T> {
    const file = await readingOf(this.#name, this.#path, open(bytesOf(this.#path), READ_ONLY));
    try {
      if ((await file.stat({ bigint: true })).ino !== this.#inode) throw this.endedEarly();
      return await work(file);
    } finally {
      await file.close();
    }
  }
}

interface FileId {
  readonly device: bigint;
  readonly inode: bigint;
}

// Small maps: a large one holds the event loop each time that it grows.
const LINK_MAPS = 4096n;

/** Files by device and inode: one that comes again is another name of the same file. */
export class LinkedFiles {
  readonly #maps = new Map<bigint, Map<bigint, TreeNode>>();

  get({ device, inode }: FileId): TreeNode | undefined {
    return this.#maps.get(mapOf(device, inode))?.get(inode);
  }

  add({ device, inode }: FileId, node: TreeNode): void {
    const key = mapOf(device, inode);
    const map = this.#maps.get(key);
    if (map === undefined) this.#maps.set(key, new Map([[inode, node]]));
    else map.set(inode, node);
  }
}

function mapOf(device: bigint, inode: bigint): bigint {
  return device * LINK_MAPS + (inode % LINK_MAPS);
}

/** The bytes of a path: names are kept as Latin-1. */
export function bytesOf(latin1: string): Buffer {
  return Buffer.from(latin1, 'latin1');
}
