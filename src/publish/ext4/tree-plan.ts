// Plans a tree in a filesystem: an inode number for each file, and the number of blocks. Rejects what ext4 cannot hold.
import { setImmediate as nextTurn } from 'node:timers/promises';
import { RootfsError } from '../../system/errors.js';
import { sortedNames } from '../../system/sorted-names.js';
import type { Attribute, FolderNode, PlannedInode, TreeNode } from '../tree/file-tree.js';
import { showPath } from '../tree/file-tree.js';
import type { AttributePlan } from './attribute-area.js';
import { planAttributes } from './attribute-area.js';
import { type BlockRun, runsOf, SCAN_ABOVE_BYTES } from './data-runs.js';
import { treeBlocks } from './extents.js';
import { FolderSize } from './folder-blocks.js';
import { holdsTime } from './inode.js';
import {
  BLOCK_BYTES,
  FIRST_FREE_INODE,
  INODE,
  LINK_LIMIT,
  LOST_AND_FOUND_INODE,
  ROOT_INODE,
} from './layout.js';

export interface PlannedFile extends PlannedInode {
  readonly node: TreeNode;
  readonly attributes: AttributePlan;
  /** Where a large file holds data. Small files are scanned when they are written. */
  readonly runs: readonly BlockRun[] | undefined;
  /** Set for folders only. */
  readonly parent: number;
}

export interface TreePlan {
  readonly root: FolderNode;
  /** In inode order, without the root folder. */
  readonly files: readonly PlannedFile[];
  /** The last inode in use. */
  readonly lastInode: number;
  /** Blocks for contents, folders and attributes. */
  readonly blocks: number;
}

export const LOST_AND_FOUND = 'lost+found';

// How many files to handle before yielding to the event loop.
const SLICE = 250;

// Kernel limits: the length of a path, and the 32-bit block numbers of a file.
const TARGET_LIMIT = 4095;
const FILE_BYTES_LIMIT = (2 ** 32 - 1) * BLOCK_BYTES;

/** A folder that is being planned, file by file. */
interface Level {
  readonly path: string;
  readonly node: FolderNode;
  readonly number: number;
  readonly names: readonly string[];
  readonly size: FolderSize;
  next: number;
}

/** Rejects with `IMAGE_INVALID` for what ext4 cannot hold. `from` is the source, used in messages. */
export async function planTree(root: FolderNode, from: string, checkAborted: () => void): Promise<TreePlan> {
  const files: PlannedFile[] = [];
  const top = await levelOf(root, '', ROOT_INODE);
  let next = FIRST_FREE_INODE;
  top.size.add(LOST_AND_FOUND);
  let blocks = 0;
  const levels = [top];
  for (let count = 0, level = levels.at(-1); level !== undefined; level = levels.at(-1), count++) {
    if (count % SLICE === 0) {
      checkAborted();
      await nextTurn();
    }
    const name = level.names[level.next++];
    if (name === undefined) {
      blocks += level.size.blocks;
      levels.pop();
      continue;
    }
    level.size.add(name);
    const path = `${level.path}/${name}`;
    const node = level.node.children.get(name) as TreeNode;
    if (node.planned !== undefined) {
      if (++node.planned.names > LINK_LIMIT) throw tooManyNames(from, path);
      continue;
    }
    const number = path === `/${LOST_AND_FOUND}` ? requireFolder(from, path, node) : next++;
    const attributes = requireHeld(from, path, node);
    const runs =
      node.kind === 'file' && node.content.sizeBytes > SCAN_ABOVE_BYTES
        ? await runsOf(node.content)
        : undefined;
    const file: PlannedFile = { node, number, attributes, runs, parent: level.number, names: 1 };
    node.planned = file;
    files.push(file);
    if (attributes.inBlock.length > 0) blocks++;
    if (node.kind === 'folder') levels.push(await levelOf(node, path, number));
    else blocks += blocksFor(node, runs);
  }
  return { root, files, lastInode: next - 1, blocks };
}

async function levelOf(node: FolderNode, path: string, number: number): Promise<Level> {
  const names = await sortedNames(node.children.keys());
  return { path, node, number, names, size: new FolderSize(), next: 0 };
}

function blocksFor(node: Exclude<TreeNode, FolderNode>, runs: readonly BlockRun[] | undefined): number {
  switch (node.kind) {
    case 'symlink':
      return node.target.length < INODE.blockLength ? 0 : 1;
    case 'file':
      // Counts the holes of a small file too, because it is not yet known which blocks are zeros.
      return runs === undefined ? Math.ceil(node.content.sizeBytes / BLOCK_BYTES) : contentBlocks(runs);
    default:
      return 0;
  }
}

function contentBlocks(runs: readonly BlockRun[]): number {
  return runs.reduce((sum, { count }) => sum + count, treeBlocks(runs.length));
}

function requireHeld(from: string, path: string, node: TreeNode): AttributePlan {
  const refuse = (why: string) => cannotHold(from, path, why);
  if (!holdsTime(node.mtimeNs))
    throw refuse('has a time of modification before 1901 or after 2446: give it another one with touch');
  if (node.kind === 'symlink' && (node.target.length > TARGET_LIMIT || node.target.length === 0))
    throw refuse(`is a symbolic link whose target has ${node.target.length} bytes, and ext4 holds 1 to 4095`);
  if (node.kind === 'file' && node.content.sizeBytes > FILE_BYTES_LIMIT)
    throw refuse('is longer than the 16 TiB that a file of ext4 can have: remove it or cut it off');
  return requireAttributes(from, path, node.attributes);
}

/** Throws `IMAGE_INVALID` if they are more than ext4 can hold. */
export function requireAttributes(
  from: string,
  path: string,
  attributes: readonly Attribute[],
): AttributePlan {
  const plan = planAttributes(attributes);
  if (plan !== undefined) return plan;
  const sizes = attributes.map(({ name, value }) => `${name} (${value.length} bytes)`).join(', ');
  throw cannotHold(
    from,
    path,
    `has extended attributes that do not fit into ext4, which has one block of ${BLOCK_BYTES} bytes for all of ` +
      `a file's: ${sizes}; remove what is not needed with setfattr -x`,
  );
}

function requireFolder(from: string, path: string, node: TreeNode): number {
  if (node.kind === 'folder') return LOST_AND_FOUND_INODE;
  throw cannotHold(from, path, 'is not a folder, and e2fsck needs a folder of that name: rename it');
}

function tooManyNames(from: string, path: string): RootfsError {
  return cannotHold(
    from,
    path,
    `is one of more than ${LINK_LIMIT} hard links to one file, the most that ext4 allows: make copies of some of them`,
  );
}

function cannotHold(from: string, path: string, why: string): RootfsError {
  return new RootfsError('IMAGE_INVALID', `ext4 cannot hold ${showPath(path)} of ${from}: it ${why}`, {
    path: from,
  });
}
