// Reads a folder as a tree: the facts of each file, and a mark that shows whether the folder changed.
import { opendir, realpath } from 'node:fs/promises';
import { native } from '../../addon/native.js';
import { RootfsError } from '../../system/errors.js';
import { SCAN_ABOVE_BYTES } from '../ext4/data-runs.js';
import { ofTheTree } from './attributes.js';
import { Children } from './children.js';
import {
  type Attribute,
  EMPTY,
  type FileContent,
  type FileFacts,
  type FolderNode,
  type Segment,
  showPath,
  type TreeNode,
} from './file-tree.js';
import { bytesOf, FolderFile, LinkedFiles, readingOf, type TreeName } from './folder-files.js';
import { TreeCount, type TreeLimits } from './limits.js';
import { mountsBelow } from './mounts.js';
import { sortedNames } from './sorted-names.js';

export interface FolderTree {
  readonly root: FolderNode;
  /** Differs if anything in the folder was added, removed or written to. */
  readonly mark: string;
  /** Mount points that are published as empty folders. */
  readonly mounts: readonly string[];
}

export interface FolderReading {
  readonly limits: TreeLimits;
  /** Whether to include what is mounted in the folder. */
  readonly includeMounts: boolean;
  /** The time of files without one of their own: mount points and new folders. */
  readonly otherTimeNs: bigint;
  /** Used in messages, with paths within it. Default: the folder's path. */
  readonly source?: string;
  /** Folders with a time between these were made by the program that unpacked the tree. */
  readonly newFoldersNs?: { readonly from: bigint; readonly to: bigint };
  checkAborted(): void;
}

// How many files to read per native call.
const BATCH = 128;
const NAMES_AT_ONCE = 256;

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
const NO_BYTES = Buffer.alloc(0);

/** One row of the addon's facts about a file. */
const NUMBERS = 13;
const BLOCKS = 4;

interface Row {
  readonly kind: TreeNode['kind'];
  readonly facts: FileFacts;
  readonly sizeBytes: number;
  readonly blocks: number;
  readonly device: bigint;
  readonly inode: bigint;
  readonly major: number;
  readonly minor: number;
  readonly target: Buffer;
  /** Feeds the mark of the tree. */
  readonly state: string;
}

/** Rejects with `IMAGE_INVALID` for what no image can hold, `SOURCE_TOO_LARGE`, or a system error code. */
export function readFolder(path: string, reading: FolderReading): Promise<FolderTree> {
  return read(path, reading, true);
}

/** The mark alone: for telling whether the folder is as it was. */
export async function markOfFolder(path: string, reading: FolderReading): Promise<string> {
  return (await read(path, reading, false)).mark;
}

async function read(path: string, reading: FolderReading, keepsNodes: boolean): Promise<FolderTree> {
  const top = (await realpath(path)).replace(/\/$/, '');
  const mounts = reading.includeMounts ? new Set<string>() : await mountsBelow(top);
  const topBytes = Buffer.from(top).toString('latin1');
  const reader = new FolderReader(reading, nameOf(path, topBytes, reading.source), mounts, keepsNodes);
  return reader.read(topBytes);
}

function nameOf(path: string, top: string, source: string | undefined): TreeName {
  if (source === undefined) return { source: path, show: showPath };
  return { source, show: (at) => `${showPath(at.slice(top.length)) || '/'} in ${source}` };
}

interface PendingFolder {
  /** Latin-1, like all paths here. */
  readonly path: string;
  readonly node: FolderNode;
  readonly depth: number;
}

class FolderReader {
  readonly #reading: FolderReading;
  readonly #name: TreeName;
  readonly #mounts: ReadonlySet<string> | undefined;
  readonly #keepsNodes: boolean;
  readonly #count: TreeCount;
  readonly #linked = new LinkedFiles();
  readonly #found: string[] = [];
  readonly #pending: PendingFolder[] = [];
  #device = 0n;
  #mark = '';

  constructor(
    reading: FolderReading,
    name: TreeName,
    mounts: ReadonlySet<string> | undefined,
    keepsNodes: boolean,
  ) {
    this.#reading = reading;
    this.#name = name;
    this.#mounts = mounts;
    this.#keepsNodes = keepsNodes;
    this.#count = new TreeCount(name.source, reading.limits);
  }

  async read(top: string): Promise<FolderTree> {
    const [own] = await readRows([top === '' ? '/' : top]);
    this.#device = (own as Row).device;
    const root: FolderNode = { ...(own as Row).facts, kind: 'folder', children: new Children<TreeNode>() };
    this.#pending.push({ path: top, node: root, depth: 0 });
    for (let folder = this.#pending.pop(); folder !== undefined; folder = this.#pending.pop())
      await this.#readFolder(folder);
    return { root, mark: this.#mark, mounts: this.#found };
  }

  async #namesIn(path: string, depth: number): Promise<string[]> {
    const names: string[] = [];
    const options = { encoding: 'buffer' as BufferEncoding, bufferSize: NAMES_AT_ONCE };
    const folder = await readingOf(this.#name, path, opendir(bytesOf(path === '' ? '/' : path), options));
    for await (const entry of folder) {
      names.push((entry.name as unknown as Buffer).toString('latin1'));
      this.#count.add(depth + 1);
    }
    return sortedNames(names);
  }

  async #readFolder({ path, node, depth }: PendingFolder): Promise<void> {
    const names = await this.#namesIn(path, depth);
    const prefix = `${path}/`;
    for (let at = 0; at < names.length; at += BATCH) {
      this.#reading.checkAborted();
      const batch = names.slice(at, at + BATCH);
      const rows = await readingOf(this.#name, path, readRows(batch.map((name) => prefix + name)));
      const marks = [this.#mark, path];
      for (const [i, name] of batch.entries()) {
        const row = rows[i] as Row;
        const at = prefix + name;
        if (this.#isMount(at, row)) {
          marks.push(name, 'mount');
          node.children.set(name, this.#emptyMount(at, row.kind));
          continue;
        }
        marks.push(name, row.state);
        if (this.#keepsNodes)
          node.children.set(name, this.#nodeOf(row, await this.#rangesOf(at, row), at, depth + 1));
        else if (row.kind === 'folder') this.#pending.push({ path: at, node, depth: depth + 1 });
      }
      this.#mark = native().sha256(marks.join('\n'));
    }
  }

  #rangesOf(path: string, row: Row): Promise<Segment[] | undefined> {
    return readingOf(this.#name, path, rangesOf(path, row));
  }

  #nodeOf(row: Row, ranges: readonly Segment[] | undefined, path: string, depth: number): TreeNode {
    const known = row.kind === 'folder' ? undefined : this.#linked.get(row);
    if (known !== undefined) return known;
    const node = this.#newNode(row, ranges, path);
    if (node.kind === 'folder') this.#pending.push({ path, node, depth });
    else this.#linked.add(row, node);
    return node;
  }

  #newNode(row: Row, ranges: readonly Segment[] | undefined, path: string): TreeNode {
    const { kind, facts } = row;
    const { mode, uid, gid, mtimeNs, attributes } = facts;
    const planned = undefined;
    switch (kind) {
      case 'folder':
        return { ...this.#factsOfFolder(facts), planned, kind, children: new Children<TreeNode>() };
      case 'file': {
        const content = this.#contentOf(path, row, ranges);
        return { mode, uid, gid, mtimeNs, attributes, planned, kind, content };
      }
      case 'symlink':
        return { mode: 0o777, uid, gid, mtimeNs, attributes, planned, kind, target: row.target };
      case 'character device':
      case 'block device':
        if (kind === 'character device' && row.major === 0 && row.minor === 0)
          throw new RootfsError(
            'IMAGE_INVALID',
            `${this.#name.show(path)} is a whiteout of overlayfs, which hides a file of a lower layer: mount the ` +
              'overlay and publish the merged folder',
            { path: this.#name.show(path) },
          );
        return { ...facts, kind, major: row.major, minor: row.minor };
      default:
        return { ...facts, kind };
    }
  }

  /** An archive need not list its folders. Those have whatever this host gives to a new one. */
  #factsOfFolder({ mode, uid, gid, mtimeNs, attributes }: FileFacts): FileFacts {
    const { newFoldersNs, otherTimeNs } = this.#reading;
    const isNew = newFoldersNs !== undefined && mtimeNs >= newFoldersNs.from && mtimeNs <= newFoldersNs.to;
    return isNew
      ? { mode: 0o755, uid: 0, gid: 0, mtimeNs: otherTimeNs, attributes: [] }
      : { mode, uid, gid, mtimeNs, attributes };
  }

  #isMount(path: string, row: Row): boolean {
    if (this.#reading.includeMounts) return false;
    return this.#mounts === undefined ? row.device !== this.#device : this.#mounts.has(path);
  }

  /** The folder below a mount is hidden, so it gets the same facts on every host. */
  #emptyMount(path: string, kind: TreeNode['kind']): TreeNode {
    this.#found.push(this.#name.show(path));
    const facts = { uid: 0, gid: 0, mtimeNs: this.#reading.otherTimeNs, attributes: [] };
    if (kind === 'folder') return { ...facts, mode: 0o755, kind, children: new Children<TreeNode>() };
    return { ...facts, mode: 0o644, kind: 'file', content: EMPTY };
  }

  #contentOf(path: string, { sizeBytes, inode }: Row, ranges: readonly Segment[] | undefined): FileContent {
    return sizeBytes === 0 ? EMPTY : new FolderFile(this.#name, path, sizeBytes, inode, ranges);
  }
}

async function readRows(paths: readonly string[]): Promise<Row[]> {
  const [numbers, texts] = await native().fileFacts(paths.map(bytesOf));
  const all = new BigInt64Array(numbers);
  return paths.map((_, i) => rowOf(all.subarray(i * NUMBERS, (i + 1) * NUMBERS), texts[i] ?? []));
}

function rowOf(numbers: BigInt64Array, [target, ...attributes]: readonly Buffer[]): Row {
  const at = (i: number) => numbers[i] as bigint;
  const mode = Number(at(0));
  return {
    kind: KINDS[mode & TYPE_MASK] as TreeNode['kind'],
    facts: {
      mode: mode & 0o7777,
      uid: Number(at(1)),
      gid: Number(at(2)),
      mtimeNs: at(5) * 1_000_000_000n + at(6),
      attributes: attributes.length === 0 ? NO_ATTRIBUTES : ofTheTree(pairs(attributes)),
    },
    sizeBytes: Number(at(3)),
    blocks: Number(at(BLOCKS)),
    device: at(9),
    inode: at(10),
    major: Number(at(11)),
    minor: Number(at(12)),
    target: target ?? NO_BYTES,
    // A new name outside the tree does not change the tree, so the link count is left out; nor does a file system that
    // lays out what was written earlier, so the blocks are.
    state: numbers.filter((_, i) => i !== BLOCKS).join(' '),
  };
}

function pairs(attributes: readonly Buffer[]): Attribute[] {
  const list: Attribute[] = [];
  for (let i = 0; i + 1 < attributes.length; i += 2)
    list.push({ name: (attributes[i] as Buffer).toString('latin1'), value: attributes[i + 1] as Buffer });
  return list;
}

/** Where a large file holds data. Undefined if it is all data, or small: its holes are found when it is read. */
async function rangesOf(path: string, { kind, sizeBytes, blocks }: Row): Promise<Segment[] | undefined> {
  if (kind !== 'file' || sizeBytes <= SCAN_ABOVE_BYTES || blocks * 512 >= sizeBytes) return undefined;
  const ends = await native().dataRanges(bytesOf(path), sizeBytes);
  const segments: Segment[] = [];
  for (let i = 0; i + 1 < ends.length; i += 2) {
    const [at, end] = [ends[i] as number, ends[i + 1] as number];
    segments.push({ at, length: end - at, from: at });
  }
  return segments;
}
