// Reads a folder as a tree: the facts of each file, and a mark that shows whether the folder changed.
import { realpath, statfs } from 'node:fs/promises';
import { native } from '../../addon/native.js';
import { visitNames } from '../../folder/names-in.js';
import { errnoName, RootfsError } from '../../system/errors.js';
import { sortedNames } from '../../system/sorted-names.js';
import { isBinaryAcl } from '../tar/acl.js';
import { ACL_NAMES } from './attributes.js';
import { Children } from './children.js';
import { type FileRow, rangesOf, readRows, type UnreadableAttribute } from './file-rows.js';
import {
  EMPTY,
  type FileContent,
  type FolderNode,
  type Segment,
  showPath,
  type TreeNode,
} from './file-tree.js';
import { bytesOf, FolderFile, LinkedFiles, readingOf, type TreeName } from './folder-files.js';
import { isOfStoredLayer, isOfUpperFolder, isWhiteoutFile, realOwnerElsewhere } from './layer-marks.js';
import { TreeCount, type TreeLimits } from './limits.js';
import type { ListedEntry, ListedFolder } from './listed-files.js';
import { mountsBelow } from './mounts.js';
import { type OverflowIds, overflowIds } from './user-namespace.js';

interface FolderTree {
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
  /** The time of files without one of their own: mount points and folders that are not listed. */
  readonly otherTimeNs: bigint;
  /** Used in messages, with paths within it. Default: the folder's path. */
  readonly source?: string;
  /** For the layers of a container image: what they list. */
  readonly listed?: ListedFolder;
  checkAborted(): void;
}

// How many files to read per native call.
const BATCH = 128;

/** By statfs(2)'s f_type: their files say another length than they have, and change whenever they are read. */
const KERNELS: Readonly<Record<number, string>> = {
  40864: 'proc',
  1650812274: 'sysfs',
  1650812272: 'configfs',
};

const MERGED = 'mount the overlay and publish the merged folder';

/**
 * Rejects with `IMAGE_INVALID` for what no image can hold, `SOURCE_TOO_LARGE`, `SOURCE_CHANGED` if files go meanwhile,
 * or a system error code.
 */
export function readFolder(path: string, reading: FolderReading): Promise<FolderTree> {
  return read(path, reading, true);
}

/** The mark alone: for telling whether the folder is as it was. */
export async function markOfFolder(path: string, reading: FolderReading): Promise<string> {
  return (await read(path, reading, false)).mark;
}

async function read(path: string, reading: FolderReading, keepsNodes: boolean): Promise<FolderTree> {
  // As bytes: what a link leads to need not be UTF-8.
  const top = (await realpath(path, 'buffer')).toString('latin1').replace(/\/$/, '');
  const mounts = reading.includeMounts ? new Set<string>() : await mountsBelow(top);
  const overflow = await overflowIds();
  const reader = new FolderReader(reading, nameOf(path, top, reading.source), mounts, overflow, keepsNodes);
  return reader.read(top);
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
  readonly listed: ListedFolder | undefined;
}

class FolderReader {
  readonly #reading: FolderReading;
  readonly #name: TreeName;
  readonly #mounts: ReadonlySet<string> | undefined;
  readonly #overflow: OverflowIds;
  readonly #keepsNodes: boolean;
  readonly #count: TreeCount;
  readonly #linked = new LinkedFiles();
  readonly #found: string[] = [];
  /** Folders on which something is mounted. */
  readonly #mountPoints = new Set<string>();
  readonly #pending: PendingFolder[] = [];
  /** Of the file systems that were looked at. */
  readonly #devices = new Set<bigint>();
  #top = '';
  #device = 0n;
  #mark = '';

  constructor(
    reading: FolderReading,
    name: TreeName,
    mounts: ReadonlySet<string> | undefined,
    overflow: OverflowIds,
    keepsNodes: boolean,
  ) {
    this.#reading = reading;
    this.#name = name;
    this.#mounts = mounts;
    this.#overflow = overflow;
    this.#keepsNodes = keepsNodes;
    this.#count = new TreeCount(name.source, reading.limits);
  }

  async read(top: string): Promise<FolderTree> {
    const [own] = await readRows([top === '' ? '/' : top]);
    this.#top = top;
    this.#device = (own as FileRow).device;
    await this.#refuseKernels(own as FileRow, top === '' ? '/' : top);
    const root: FolderNode = {
      ...(own as FileRow).facts,
      kind: 'folder',
      children: new Children<TreeNode>(),
    };
    this.#pending.push({ path: top, node: root, depth: 0, listed: this.#reading.listed });
    for (let folder = this.#pending.pop(); folder !== undefined; folder = this.#pending.pop())
      await this.#readFolder(folder);
    return { root, mark: this.#mark, mounts: this.#found };
  }

  async #namesIn(path: string, depth: number): Promise<string[]> {
    const names: string[] = [];
    const visit = (name: string, mayBeFolder: boolean) => {
      this.#count.add(depth + 1);
      names.push(name);
      if (mayBeFolder && this.#mounts?.has(`${path}/${name}`)) this.#mountPoints.add(`${path}/${name}`);
    };
    // One too many is enough to refuse the tree: a stranger's folder can hold more names than there is memory for.
    await visitNames(bytesOf(path === '' ? '/' : path), 'latin1', visit, this.#count.left + 1);
    return sortedNames(names);
  }

  async #readFolder({ path, node, depth, listed }: PendingFolder): Promise<void> {
    const names = await readingOf(this.#name, path, this.#namesIn(path, depth));
    const prefix = `${path}/`;
    for (let at = 0; at < names.length; at += BATCH) {
      this.#reading.checkAborted();
      const batch = names.slice(at, at + BATCH);
      const rows = await readingOf(this.#name, path, this.#rowsOf(batch.map((name) => prefix + name)));
      const marks = [this.#mark, path];
      for (const name of batch) {
        const at = prefix + name;
        const row = rows.get(at);
        if (row === undefined || this.#isElsewhere(row)) {
          marks.push(name, 'mount');
          node.children.set(name, this.#emptyMount(at, row?.kind === 'folder' || this.#mountPoints.has(at)));
          continue;
        }
        await this.#refuseKernels(row, at);
        marks.push(name, row.state);
        if (this.#keepsNodes)
          node.children.set(
            name,
            this.#nodeOf(row, await this.#rangesOf(at, row), at, depth + 1, listed?.children.get(name)),
          );
        else if (row.kind === 'folder')
          this.#pending.push({ path: at, node, depth: depth + 1, listed: undefined });
      }
      this.#mark = native().sha256(marks.join('\n'));
    }
  }

  /** Without mounts, which may not be there to look at: of a FUSE program that has died, or of another user. */
  async #rowsOf(paths: readonly string[]): Promise<Map<string, FileRow>> {
    const own = paths.filter((path) => !this.#mounts?.has(path));
    const rows = await readRows(own);
    return new Map(own.map((path, i) => [path, rows[i] as FileRow]));
  }

  #rangesOf(path: string, row: FileRow): Promise<Segment[] | undefined> {
    return readingOf(this.#name, path, rangesOf(path, row));
  }

  #nodeOf(
    row: FileRow,
    ranges: readonly Segment[] | undefined,
    path: string,
    depth: number,
    entry: ListedEntry | undefined,
  ): TreeNode {
    // In a FUSE file system of several, files that are not linked can have the same device and inode numbers.
    const mayBeKnown = row.kind !== 'folder' && row.isLinked;
    const known = mayBeKnown ? this.#linked.get(row) : undefined;
    if (known !== undefined) return known;
    const node = this.#newNode(this.#asListed(row, entry), ranges, path);
    if (node.kind === 'folder')
      this.#pending.push({ path, node, depth, listed: entry?.kind === 'folder' ? entry : undefined });
    else if (mayBeKnown) this.#linked.add(row, node);
    return node;
  }

  #newNode(row: FileRow, ranges: readonly Segment[] | undefined, path: string): TreeNode {
    const { kind } = row;
    const isStored = isOfStoredLayer(path.slice(this.#top.length));
    // umoci has applied the whiteouts of a container image, and other marks are of the host that made it.
    if (!isStored && this.#reading.listed === undefined) this.#refuseLayer(row, path);
    const keepsMarks = isStored && row.marks.length > 0;
    const facts = keepsMarks
      ? { ...row.facts, attributes: [...row.facts.attributes, ...row.marks] }
      : row.facts;
    const { mode, uid, gid, mtimeNs, attributes } = facts;
    const planned = undefined;
    this.#refuseUnknownUsers(row, path);
    if (row.unreadable !== undefined) throw this.#cannotRead(row.unreadable, path);
    switch (kind) {
      case 'folder':
        return { mode, uid, gid, mtimeNs, attributes, planned, kind, children: new Children<TreeNode>() };
      case 'file': {
        const content = this.#contentOf(path, row, ranges);
        return { mode, uid, gid, mtimeNs, attributes, planned, kind, content };
      }
      case 'symlink':
        return { mode: 0o777, uid, gid, mtimeNs, attributes, planned, kind, target: row.target };
      case 'character device':
      case 'block device':
        return { ...facts, kind, major: row.major, minor: row.minor };
      default:
        return { ...facts, kind };
    }
  }

  async #refuseKernels({ device, kind }: FileRow, path: string): Promise<void> {
    // statfs would follow a link. A device may be that of links alone, as in an overlay.
    if (this.#devices.has(device) || (kind !== 'folder' && kind !== 'file')) return;
    this.#devices.add(device);
    const { type } = await readingOf(this.#name, path, statfs(bytesOf(path)));
    const kernels = KERNELS[type];
    if (kernels !== undefined)
      throw this.#refuse(
        path,
        `is of ${kernels}, a file system of the kernel, which no image can hold: unmount it, or publish without ` +
          'includeMounts',
      );
  }

  #refuseLayer({ kind, major, minor, sizeBytes, marks }: FileRow, path: string): void {
    const isWhiteout =
      (kind === 'character device' && major === 0 && minor === 0) ||
      (kind === 'file' && isWhiteoutFile(path.slice(path.lastIndexOf('/') + 1), sizeBytes));
    if (isWhiteout) throw this.#refuse(path, `is a whiteout, which hides a file of a lower layer: ${MERGED}`);
    if (isOfUpperFolder(marks))
      throw this.#refuse(
        path,
        `has a mark of overlayfs, which hides or needs files of a lower layer: ${MERGED}`,
      );
    const realOwner = realOwnerElsewhere(marks);
    if (realOwner !== undefined) throw this.#refuse(path, realOwner);
  }

  #refuseUnknownUsers({ facts: { uid, gid, attributes } }: FileRow, path: string): void {
    const isLost = attributes.some(({ name, value }) => ACL_NAMES.includes(name) && !isBinaryAcl(value));
    const what =
      (uid === this.#overflow.uid && `the owner ${uid}`) ||
      (gid === this.#overflow.gid && `the group ${gid}`) ||
      (isLost && 'an access list for the id -1');
    if (what === false) return;
    const shown = this.#name.show(path);
    throw new RootfsError(
      'EPERM',
      `${shown} has ${what}, which stands for all that this user namespace lacks: publish as root of the host, or a ` +
        'tar with the real ones',
      { path: shown },
    );
  }

  #cannotRead({ name, errno }: UnreadableAttribute, path: string): RootfsError {
    const code = errnoName(-errno);
    const shown = this.#name.show(path);
    return new RootfsError(
      code,
      `the attribute ${name} of ${shown} is listed, but reading it fails with ${code}: publish a copy without it, or ` +
        'as a user who may read it',
      { path: shown, errno: -errno, syscall: 'lgetxattr' },
    );
  }

  #refuse(path: string, why: string): RootfsError {
    const shown = this.#name.show(path);
    return new RootfsError('IMAGE_INVALID', `${shown} ${why}`, { path: shown });
  }

  /** Layers need not list their folders. Those have whatever this host gives to a new one. */
  #asListed(row: FileRow, entry: ListedEntry | undefined): FileRow {
    const { listed, otherTimeNs } = this.#reading;
    if (listed === undefined) return row;
    const isFolder = row.kind === 'folder';
    const mtimeNs = (entry?.kind === 'folder') === isFolder ? entry?.mtimeNs : undefined;
    if (mtimeNs !== undefined) return { ...row, facts: { ...row.facts, mtimeNs } };
    if (!isFolder) return row;
    return { ...row, facts: { mode: 0o755, uid: 0, gid: 0, mtimeNs: otherTimeNs, attributes: [] } };
  }

  /** Whether it is a mount, as far as that can be found out without /proc. */
  #isElsewhere({ device }: FileRow): boolean {
    return this.#mounts === undefined && device !== this.#device;
  }

  /** What lies below a mount is hidden, so it gets the same facts on every host. */
  #emptyMount(path: string, isFolder: boolean): TreeNode {
    this.#found.push(this.#name.show(path));
    const facts = { uid: 0, gid: 0, mtimeNs: this.#reading.otherTimeNs, attributes: [] };
    if (isFolder) return { ...facts, mode: 0o755, kind: 'folder', children: new Children<TreeNode>() };
    return { ...facts, mode: 0o644, kind: 'file', content: EMPTY };
  }

  #contentOf(
    path: string,
    { sizeBytes, inode }: FileRow,
    ranges: readonly Segment[] | undefined,
  ): FileContent {
    return sizeBytes === 0 ? EMPTY : new FolderFile(this.#name, path, sizeBytes, inode, ranges);
  }
}
