// Writes a tree into an empty filesystem: contents in inode order, each file contiguous where there is room.

import { type FileHandle, open } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { writeFully } from '../../image/write-bytes.js';
import { sortedNames } from '../../system/sorted-names.js';
import {
  type FileContent,
  type FolderNode,
  type PlannedInode,
  readContent,
  type TreeNode,
} from '../tree/file-tree.js';
import type { AttributePlan } from './attribute-area.js';
import { encodeAttributeBlock, NO_ATTRIBUTES } from './attribute-area.js';
import { addRuns, type BlockRun } from './data-runs.js';
import { EXTENT_BLOCKS_LIMIT, type Extent, encodeExtents, readInodeExtents } from './extents.js';
import { encodeFolder, type FolderEntry } from './folder-blocks.js';
import { Groups, readAt } from './groups.js';
import { encodeInode, inodeSeedOf } from './inode.js';
import { BLOCK_BYTES, INODE, INODE_BYTES, LINK_LIMIT, LOST_AND_FOUND_INODE, ROOT_INODE } from './layout.js';
import { PendingWrites } from './pending-writes.js';
import { batchFrom, readSmallFiles } from './small-files.js';
import { LOST_AND_FOUND, type PlannedFile, type TreePlan } from './tree-plan.js';

const COPY_BLOCKS = 256;

/** How many runs of a file to place before yielding to the event loop. */
const PLACE_SLICE = 1024;

/**
 * `image` holds an empty filesystem made by make-ext4.ts. `rootTimeNs` is the time of the root folder, which is not
 * part of the tree. Rejects with {@link FilesystemFull} if the tree does not fit.
 */
export async function writeTree(
  image: string,
  plan: TreePlan,
  rootTimeNs: bigint,
  checkAborted: () => void,
): Promise<void> {
  const file = await open(image, 'r+');
  try {
    await new TreeWriter(file, await Groups.read(file), plan).write(rootTimeNs, checkAborted);
  } finally {
    await file.close();
  }
}

/** The contents of an inode as stored in the image. */
interface Contents {
  readonly extents: readonly Extent[];
  readonly sizeBytes: number;
}

interface WrittenFolder {
  readonly contents: Contents;
  readonly links: number;
}

class TreeWriter {
  readonly #file: FileHandle;
  readonly #groups: Groups;
  readonly #plan: TreePlan;
  readonly #writes: PendingWrites;
  readonly #copyBuffer = Buffer.allocUnsafe(COPY_BLOCKS * BLOCK_BYTES);
  readonly #foldersOfGroup: number[] = [];
  // The inode table of the group that is being written.
  #table: Buffer = Buffer.alloc(0);
  #tableGroup = -1;

  constructor(file: FileHandle, groups: Groups, plan: TreePlan) {
    this.#file = file;
    this.#groups = groups;
    this.#plan = plan;
    this.#writes = new PendingWrites(file);
  }

  async write(rootTimeNs: bigint, checkAborted: () => void): Promise<void> {
    const { files, root } = this.#plan;
    await this.#writeRoot(rootTimeNs);
    for (let at = 0, batch = batchFrom(files, 0); batch.length > 0; batch = batchFrom(files, at)) {
      checkAborted();
      // Folders and links alone would make no call that waits.
      await nextTurn();
      at += batch.length;
      const contents = await readSmallFiles(batch);
      for (const [i, planned] of batch.entries()) await this.#writeFile(planned, contents[i]);
    }
    if (!root.children.has(LOST_AND_FOUND)) this.#countFolder(LOST_AND_FOUND_INODE);
    await this.#writes.flush();
    await this.#flushTable();
    await this.#groups.finish(this.#plan.lastInode, this.#foldersOfGroup);
  }

  async #writeRoot(rootTimeNs: bigint): Promise<void> {
    const { root } = this.#plan;
    const facts = { mode: 0o755, uid: 0, gid: 0, mtimeNs: rootTimeNs, attributes: [] };
    const own: FolderEntry = { name: LOST_AND_FOUND, inode: LOST_AND_FOUND_INODE, kind: 'folder' };
    const names = await sortedNames(root.children.keys());
    const entries = concat([own], entriesOf(root, names, LOST_AND_FOUND));
    const { links, contents } = await this.#writeFolder(ROOT_INODE, ROOT_INODE, entries);
    await this.#writeInode({ ...root, ...facts }, ROOT_INODE, links, contents, NO_ATTRIBUTES);
  }

  async #writeFile(planned: PlannedFile, small: Buffer | undefined): Promise<void> {
    const { node, number, attributes, names } = planned;
    switch (node.kind) {
      case 'folder': {
        const names = await sortedNames(node.children.keys());
        const entries = entriesOf(node, names);
        const { links, contents } = await this.#writeFolder(number, planned.parent, entries);
        return this.#writeInode(node, number, links, contents, attributes);
      }
      case 'file': {
        const contents = await this.#writeContent(node.content, planned.runs, small);
        return this.#writeInode(node, number, names, contents, attributes);
      }
      case 'symlink': {
        const { target } = node;
        if (target.length < INODE.blockLength)
          return this.#writeInode(node, number, names, target, attributes);
        const block = Buffer.alloc(BLOCK_BYTES);
        target.copy(block);
        const contents = await this.#writeBlocks([block], target.length);
        return this.#writeInode(node, number, names, contents, attributes);
      }
      case 'character device':
      case 'block device':
        return this.#writeInode(node, number, names, deviceNumbers(node.major, node.minor), attributes);
      default:
        return this.#writeInode(node, number, names, Buffer.alloc(0), attributes);
    }
  }

  /** Folders that mke2fs made keep their blocks, and get more if needed. */
  async #writeFolder(number: number, parent: number, entries: Iterable<FolderEntry>): Promise<WrittenFolder> {
    const old = number <= LOST_AND_FOUND_INODE ? await this.#extentsOf(number) : [];
    const oldBlocks = old.reduce((sum, { count }) => sum + count, 0);
    const self: FolderEntry = { name: '.', inode: number, kind: 'folder' };
    const up: FolderEntry = { name: '..', inode: parent, kind: 'folder' };
    const seed = inodeSeedOf(this.#groups.checksumSeed, number);
    const { blocks, folders } = await encodeFolder(concat([self, up], entries), seed, oldBlocks);
    for (const { logical, physical, count } of old)
      for (let i = 0; i < count; i++) await this.#writes.write(physical + i, blocks[logical + i] as Buffer);
    const added = await this.#writeBlocks(blocks.slice(oldBlocks), 0);
    const extents = added.extents.map((extent) => ({ ...extent, logical: extent.logical + oldBlocks }));
    const contents = { extents: [...old, ...extents], sizeBytes: blocks.length * BLOCK_BYTES };
    return { contents, links: folderLinks(folders) };
  }

  async #writeBlocks(blocks: readonly Buffer[], sizeBytes: number): Promise<Contents> {
    const extents = await this.#place([{ first: 0, count: blocks.length }]);
    for (const { logical, physical, count } of extents)
      for (let i = 0; i < count; i++) await this.#writes.write(physical + i, blocks[logical + i] as Buffer);
    return { extents, sizeBytes };
  }

  async #writeContent(
    content: FileContent,
    known: readonly BlockRun[] | undefined,
    small: Buffer | undefined,
  ): Promise<Contents> {
    const { sizeBytes } = content;
    if (known !== undefined) {
      const extents = await this.#place(known);
      if (extents.length > 0) await content.open((source) => this.#copy(content, source, extents));
      return { extents, sizeBytes };
    }
    const bytes = small as Buffer;
    const runs: BlockRun[] = [];
    addRuns(runs, bytes, 0);
    const extents = await this.#place(runs);
    for (const { logical, physical, count } of extents)
      await this.#writes.write(
        physical,
        bytes.subarray(logical * BLOCK_BYTES, (logical + count) * BLOCK_BYTES),
      );
    return { extents, sizeBytes };
  }

  async #copy(content: FileContent, source: FileHandle, extents: readonly Extent[]): Promise<void> {
    for (const { logical, physical, count } of extents) {
      for (let done = 0; done < count; done += COPY_BLOCKS) {
        const part = this.#copyBuffer.subarray(0, Math.min(COPY_BLOCKS, count - done) * BLOCK_BYTES);
        await readContent(content, source, (logical + done) * BLOCK_BYTES, part);
        await this.#writes.write(physical + done, part);
      }
    }
  }

  async #place(runs: readonly BlockRun[]): Promise<Extent[]> {
    const extents: Extent[] = [];
    for (const [i, { first, count }] of runs.entries()) {
      if (i % PLACE_SLICE === PLACE_SLICE - 1) await nextTurn();
      let logical = first;
      for (const run of await this.#groups.allocate(count)) {
        for (let done = 0; done < run.count; done += EXTENT_BLOCKS_LIMIT) {
          const length = Math.min(EXTENT_BLOCKS_LIMIT, run.count - done);
          extents.push({ logical, physical: run.start + done, count: length });
          logical += length;
        }
      }
    }
    return extents;
  }

  /** If `contents` is bytes, they are stored in the inode itself. */
  async #writeInode(
    node: PlannedFile['node'],
    number: number,
    links: number,
    contents: Contents | Buffer,
    attributes: AttributePlan,
  ): Promise<void> {
    const seed = inodeSeedOf(this.#groups.checksumSeed, number);
    const attributeBlock = await this.#writeAttributes(attributes);
    const own = attributeBlock === 0 ? 0 : 1;
    const place = Buffer.isBuffer(contents)
      ? {
          block: contents,
          blocks: own,
          sizeBytes: node.kind === 'symlink' ? contents.length : 0,
          hasExtents: false,
        }
      : await this.#map(contents, seed, own);
    if (node.kind === 'folder') this.#countFolder(number);
    const inode = encodeInode(node, { number, links, attributeBlock, ...place }, attributes, seed);
    const table = await this.#tableOf(number);
    inode.copy(table, ((number - 1) % this.#groups.inodesPerGroup) * INODE_BYTES);
  }

  async #map({ extents, sizeBytes }: Contents, inodeSeed: number, moreBlocks: number) {
    const tree = await encodeExtents(extents, inodeSeed, () => this.#allocateOne());
    for (const { block, bytes } of tree.blocks) await this.#writes.write(block, bytes);
    const data = extents.reduce((sum, { count }) => sum + count, 0);
    return {
      block: tree.root,
      blocks: data + tree.blocks.length + moreBlocks,
      sizeBytes,
      hasExtents: true,
    };
  }

  /** 0 if all of them fit in the inode. */
  async #writeAttributes({ inBlock }: AttributePlan): Promise<number> {
    if (inBlock.length === 0) return 0;
    const block = await this.#allocateOne();
    await this.#writes.write(block, encodeAttributeBlock(inBlock, block, this.#groups.checksumSeed));
    return block;
  }

  async #allocateOne(): Promise<number> {
    const [run] = await this.#groups.allocate(1);
    return (run as { start: number }).start;
  }

  #countFolder(number: number): void {
    const group = this.#groupOf(number);
    this.#foldersOfGroup[group] = (this.#foldersOfGroup[group] ?? 0) + 1;
  }

  #groupOf(number: number): number {
    return Math.floor((number - 1) / this.#groups.inodesPerGroup);
  }

  async #extentsOf(number: number): Promise<Extent[]> {
    const table = await this.#tableOf(number);
    return readInodeExtents(table.subarray((number - 1) * INODE_BYTES, number * INODE_BYTES));
  }

  /** Inodes are written in order, so one table in memory is enough. */
  async #tableOf(number: number): Promise<Buffer> {
    const group = this.#groupOf(number);
    if (group === this.#tableGroup) return this.#table;
    // The exception is lost+found, if the tree has one: it comes in name order, but its inode is in the first group.
    await this.#flushTable();
    const { inodesPerGroup } = this.#groups;
    const used = Math.min(this.#plan.lastInode - group * inodesPerGroup, inodesPerGroup);
    this.#table = await readAt(this.#file, this.#groups.inodeTable(group), used * INODE_BYTES);
    this.#tableGroup = group;
    return this.#table;
  }

  async #flushTable(): Promise<void> {
    if (this.#tableGroup < 0) return;
    await writeFully(this.#file, this.#table, this.#groups.inodeTable(this.#tableGroup));
    this.#tableGroup = -1;
  }
}

function* concat<T>(...parts: Iterable<T>[]): Iterable<T> {
  for (const part of parts) yield* part;
}

/** One at a time: a list of a million would live as long as the encoding. */
function* entriesOf(
  { children }: FolderNode,
  names: readonly string[],
  leftOut?: string,
): Iterable<FolderEntry> {
  for (const name of names) {
    if (name === leftOut) continue;
    const node = children.get(name) as TreeNode;
    yield { name, inode: (node.planned as PlannedInode).number, kind: node.kind };
  }
}

/**
 * The link count of a folder: `.`, its name in the parent, and `..` of each subfolder; so as many as it has entries of
 * folders. 1 means too many to count (the dir_nlink feature).
 */
function folderLinks(folders: number): number {
  return folders >= LINK_LIMIT ? 1 : folders;
}

/**
 * Same as the kernel's old_encode_dev and new_encode_dev: small numbers go into the first word, others into the second.
 */
function deviceNumbers(major: number, minor: number): Buffer {
  const bytes = Buffer.alloc(8);
  if (major < 256 && minor < 256) bytes.writeUInt16LE(major * 256 + minor, 0);
  else bytes.writeUInt32LE(((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0, 4);
  return bytes;
}
