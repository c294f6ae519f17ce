// Reads a folder as a tree: the facts of each file, and a mark that shows whether the folder changed.
import { constants } from 'node:fs';
import { open, opendir, realpath } from 'node:fs/promises';
import { native } from '../../addon/native.js';
import { RootfsError } from '../../system/errors.js';
import { SCAN_ABOVE_BYTES } from '../ext4/data-runs.js';
import { ofTheTree } from './attributes.js';
import {
  type Attribute,
  EMPTY,
  type FileContent,
  type FileFacts,
  type FolderNode,
  type Segment,
  type TreeNode,
} from './file-tree.js';
import { TreeCount, type TreeLimits } from './limits.js';
import { mountsBelow } from './mounts.js';

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
  /** Folders with a later time were made while the tree was unpacked. */
  readonly newFoldersSinceNs?: bigint;
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

const READ_ONLY = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** One row of the addon's facts about a file. */
const NUMBERS = 11;

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
export async function readFolder(path: string, reading: FolderReading): Promise<FolderTree> {
  const top = (await realpath(path)).replace(/\/$/, '');
  const mounts = reading.includeMounts ? new Set<string>() : await mountsBelow(top);
  const reader = new FolderReader(reading, path, mounts);
  return reader.read(Buffer.from(top).toString('latin1'));
}

interface PendingFolder {
  /** Latin-1, like all paths here. */
  readonly path: string;
  readonly node: FolderNode;
  readonly depth: number;
}

class FolderReader {
  readonly #reading: FolderReading;
  readonly #source: string;
  readonly #mounts: ReadonlySet<string> | undefined;
  readonly #count: TreeCount;
  readonly #linked = new Map<string, TreeNode>();
  readonly #found: string[] = [];
  readonly #pending: PendingFolder[] = [];
  #device = 0n;
  #mark = '';

  constructor(reading: FolderReading, source: string, mounts: ReadonlySet<string> | undefined) {
    this.#reading = reading;
    this.#source = source;
    this.#mounts = mounts;
    this.#count = new TreeCount(source, reading.limits);
  }

  async read(top: string): Promise<FolderTree> {
    const [own] = await readRows([top === '' ? '/' : top]);
    this.#device = (own as Row).device;
    const root: FolderNode = { ...(own as Row).facts, kind: 'folder', children: new Map() };
    this.#pending.push({ path: top, node: root, depth: 0 });
    for (let folder = this.#pending.pop(); folder !== undefined; folder = this.#pending.pop())
      await this.#readFolder(folder);
    return { root, mark: this.#mark, mounts: this.#found };
  }

  async #readFolder({ path, node, depth }: PendingFolder): Promise<void> {
    const names: string[] = [];
    const folder = await opendir(bytesOf(path === '' ? '/' : path), {
      encoding: 'buffer' as BufferEncoding,
      bufferSize: NAMES_AT_ONCE,
    });
    for await (const entry of folder) {
      names.push((entry.name as unknown as Buffer).toString('latin1'));
      this.#count.add(depth + 1);
    }
    names.sort();
    for (let at = 0; at < names.length; at += BATCH) {
      this.#reading.checkAborted();
      const batch = names.slice(at, at + BATCH);
      const rows = await readRows(batch.map((name) => `${path}/${name}`));
      const marks = [this.#mark, path];
      for (const [i, name] of batch.entries()) {
        const row = rows[i] as Row;
        const at = `${path}/${name}`;
        if (this.#isMount(at, row)) {
          marks.push(name, 'mount');
          node.children.set(name, this.#emptyMount(at, row.kind));
          continue;
        }
        marks.push(name, row.state);
        node.children.set(name, this.#nodeOf(row, await segmentsOf(at, row), at, depth + 1));
      }
      this.#mark = native().sha256(marks.join('\n'));
    }
  }

  #nodeOf(row: Row, segments: readonly Segment[], path: string, depth: number): TreeNode {
    const file = `${row.device}:${row.inode}`;
    const known = row.kind === 'folder' ? undefined : this.#linked.get(file);
    if (known !== undefined) return known;
    const node = this.#newNode(row, segments, path);
    if (node.kind === 'folder') this.#pending.push({ path, node, depth });
    else this.#linked.set(file, node);
    return node;
  }

  #newNode(row: Row, segments: readonly Segment[], path: string): TreeNode {
    const { kind, facts } = row;
    switch (kind) {
      case 'folder':
        return { ...facts, mtimeNs: this.#timeOf(facts), kind, children: new Map() };
      case 'file':
        return { ...facts, kind, content: this.#contentOf(path, row, segments) };
      case 'symlink':
        return { ...facts, mode: 0o777, kind, target: row.target };
      case 'character device':
      case 'block device':
        if (kind === 'character device' && row.major === 0 && row.minor === 0)
          throw new RootfsError(
            'IMAGE_INVALID',
            `${this.#show(path)} is a whiteout of overlayfs, which hides a file of a lower layer: mount the overlay and ` +
              'publish the merged folder',
            { path: this.#show(path) },
          );
        return { ...facts, kind, major: row.major, minor: row.minor };
      default:
        return { ...facts, kind };
    }
  }

  #timeOf({ mtimeNs }: FileFacts): bigint {
    const { newFoldersSinceNs, otherTimeNs } = this.#reading;
    return newFoldersSinceNs !== undefined && mtimeNs >= newFoldersSinceNs ? otherTimeNs : mtimeNs;
  }

  #isMount(path: string, row: Row): boolean {
    if (this.#reading.includeMounts) return false;
    return this.#mounts === undefined ? row.device !== this.#device : this.#mounts.has(path);
  }

  /** The folder below a mount is hidden, so it gets the same facts on every host. */
  #emptyMount(path: string, kind: TreeNode['kind']): TreeNode {
    this.#found.push(this.#show(path));
    const facts = { uid: 0, gid: 0, mtimeNs: this.#reading.otherTimeNs, attributes: [] };
    if (kind === 'folder') return { ...facts, mode: 0o755, kind, children: new Map() };
    return { ...facts, mode: 0o644, kind: 'file', content: EMPTY };
  }

  #contentOf(path: string, { sizeBytes, inode }: Row, segments: readonly Segment[]): FileContent {
    const changed = () =>
      new RootfsError(
        'SOURCE_CHANGED',
        `${this.#show(path)} changed while it was read: publish what nobody is writing to`,
        { path: this.#source },
      );
    return {
      sizeBytes,
      segments,
      file: { path: bytesOf(path), inode },
      endedEarly: changed,
      async open(work) {
        const file = await open(bytesOf(path), READ_ONLY);
        try {
          if ((await file.stat({ bigint: true })).ino !== inode) throw changed();
          return await work(file);
        } finally {
          await file.close();
        }
      },
    };
  }

  #show(path: string): string {
    return bytesOf(path).toString('utf8');
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
      mtimeNs: at(5),
      attributes: ofTheTree(pairs(attributes)),
    },
    sizeBytes: Number(at(3)),
    blocks: Number(at(4)),
    device: at(7),
    inode: at(8),
    major: Number(at(9)),
    minor: Number(at(10)),
    target: target ?? Buffer.alloc(0),
    // The link count is left out: a new name outside the tree does not change the tree.
    state: numbers.join(' '),
  };
}

function pairs(attributes: readonly Buffer[]): Attribute[] {
  const list: Attribute[] = [];
  for (let i = 0; i + 1 < attributes.length; i += 2)
    list.push({ name: (attributes[i] as Buffer).toString('latin1'), value: attributes[i + 1] as Buffer });
  return list;
}

async function segmentsOf(path: string, { kind, sizeBytes, blocks }: Row): Promise<Segment[]> {
  if (kind !== 'file' || sizeBytes === 0) return [];
  // The holes of a small file are found when it is read.
  if (sizeBytes <= SCAN_ABOVE_BYTES || blocks * 512 >= sizeBytes)
    return [{ at: 0, length: sizeBytes, from: 0 }];
  const ends = await native().dataRanges(bytesOf(path), sizeBytes);
  const segments: Segment[] = [];
  for (let i = 0; i + 1 < ends.length; i += 2) {
    const [at, end] = [ends[i] as number, ends[i + 1] as number];
    segments.push({ at, length: end - at, from: at });
  }
  return segments;
}

function bytesOf(latin1: string): Buffer {
  return Buffer.from(latin1, 'latin1');
}
