// Reads a tar of a root filesystem as a tree. Nothing is unpacked, so no name can lead outside the tree.

import { type FileHandle, open } from 'node:fs/promises';
import { NAME_BYTES_LIMIT } from '../../system/arguments.js';
import type { RootfsError } from '../../system/errors.js';
import { Pause } from '../../system/pause.js';
import { Children } from '../tree/children.js';
import {
  EMPTY,
  type FileContent,
  type FolderNode,
  readContent,
  type Segment,
  showPath,
  type TreeNode,
} from '../tree/file-tree.js';
import { foldersAt } from '../tree/folders-at.js';
import { isOfStoredLayer, isWhiteoutFile } from '../tree/layer-marks.js';
import { TreeCount, type TreeLimits } from '../tree/limits.js';
import { refuseOtherTree } from '../tree/other-trees.js';
import { isFolder, readMembers, shown, type TarMember } from './members.js';
import { refused, TarAttributes } from './tar-attributes.js';
import { CREATE_AGAIN, TarDamaged } from './tar-damaged.js';

interface TarReading {
  /** The source, used in messages. `path` may be a decompressed copy. */
  readonly source: string;
  readonly limits: TreeLimits;
  /** The time of folders that the tar does not list. */
  readonly otherTimeNs: bigint;
  checkAborted(): void;
}

/** Runs `work` with the tree of a tar. Rejects with `IMAGE_INVALID`, `SOURCE_TOO_LARGE`, or the error of `work`. */
export async function withTarTree<T>(
  path: string,
  reading: TarReading,
  work: (root: FolderNode) => Promise<T>,
): Promise<T> {
  const file = await open(path, 'r');
  try {
    return await work(await new TarTree(file, reading).read());
  } finally {
    await file.close();
  }
}

const PASSWORD_FILE_LIMIT = 4 * 1024 * 1024;

interface TarSource {
  readonly file: FileHandle;
  cutOff(): Error;
}

/** The contents of a file in the tar. */
class TarFile implements FileContent {
  readonly sizeBytes: number;
  readonly segments: readonly Segment[];
  readonly #source: TarSource;

  constructor(sizeBytes: number, segments: readonly Segment[], source: TarSource) {
    this.sizeBytes = sizeBytes;
    this.segments = segments;
    this.#source = source;
  }

  open<T>(work: (source: FileHandle) => Promise<T>): Promise<T> {
    return work(this.#source.file);
  }

  endedEarly(): Error {
    return this.#source.cutOff();
  }
}

class TarTree {
  readonly #file: FileHandle;
  readonly #reading: TarReading;
  readonly #count: TreeCount;
  readonly #root: FolderNode;
  readonly #source: TarSource;
  readonly #pause: Pause;
  readonly #attributes: TarAttributes;
  #hasMembers = false;

  constructor(file: FileHandle, reading: TarReading) {
    this.#file = file;
    this.#reading = reading;
    this.#count = new TreeCount(reading.source, reading.limits);
    this.#pause = new Pause(() => reading.checkAborted());
    this.#attributes = new TarAttributes(reading.source, this.#pause);
    this.#root = this.#newFolder();
    this.#source = { file, cutOff: () => this.#refuse('was cut off') };
  }

  async read(): Promise<FolderNode> {
    try {
      const { size } = await this.#file.stat();
      const watch = {
        onOddEnd: (why: string, isCutOff: boolean) => {
          if (isCutOff) throw this.#refuse(why);
          this.#warn(why);
        },
        checkAborted: () => this.#reading.checkAborted(),
      };
      for await (const member of readMembers(this.#file, size, watch)) {
        await this.#pause.ifDue();
        this.#add(member);
      }
    } catch (error) {
      if (error instanceof TarDamaged) throw this.#refuse(error.message);
      throw error;
    }
    if (!this.#hasMembers) throw this.#refuse('holds no file: is it a tar?');
    refuseOtherTree(this.#reading.source, this.#root, 'tar');
    if (this.#attributes.needNames)
      await this.#attributes.resolveAcls({
        users: await this.#idsIn('passwd'),
        groups: await this.#idsIn('group'),
      });
    return this.#root;
  }

  #warn(why: string): void {
    process.emitWarning(`${this.#reading.source} ${why}`, { code: 'MICROVM_ROOTFS_TAR' });
  }

  #add(member: TarMember): void {
    this.#hasMembers = true;
    if (member.path.length === 0) throw this.#refuse(`has a member without a name: ${CREATE_AGAIN}`);
    const names = this.#namesOf(member.path, 'a member');
    const name = names.pop();
    // The image has its own root folder.
    if (name === undefined) return;
    const isStored = isOfStoredLayer(`/${[...names, name].join('/')}`);
    // An empty file, as the OCI image specification has it.
    if (!isStored && /^[0\0]$/.test(member.type) && isWhiteoutFile(name, member.sizeBytes))
      throw this.#whiteout('of a container image', member);
    this.#count.add(names.length + 1);
    const folder = this.#folderAt(names, member);
    const before = folder.children.get(name);
    const node = this.#nodeOf(member, before, isStored);
    if (before?.kind === 'folder' && node.kind !== 'folder' && before.children.size > 0)
      throw this.#refuse(`has ${shown(member)} twice: as a folder with files in it, and as a ${node.kind}`);
    folder.children.set(name, node);
    this.#attributes.addAcls(member, node);
  }

  #nodeOf(member: TarMember, before: TreeNode | undefined, isStored: boolean): TreeNode {
    const { type, uid, gid, mtimeNs } = member;
    if (type === '1') return this.#linked(member);
    const { attributes, mode } = this.#attributes.of(member, isStored);
    const facts = { mode, uid, gid, mtimeNs, attributes };
    const planned = undefined;
    if (isFolder(member)) {
      const children = before?.kind === 'folder' ? before.children : new Children<TreeNode>();
      return { ...facts, kind: 'folder', children };
    }
    switch (type) {
      case '0':
      case '\0':
      case ' ':
      case '7':
      case 'S':
        if (isSocket(member)) return { ...facts, kind: 'socket' };
        return {
          mode,
          uid,
          gid,
          mtimeNs,
          attributes,
          planned,
          kind: 'file',
          content: this.#contentOf(member),
        };
      case '2':
        return {
          mode: 0o777,
          uid,
          gid,
          mtimeNs,
          attributes,
          planned,
          kind: 'symlink',
          target: this.#targetOf(member),
        };
      case '3':
      case '4': {
        const { major, minor } = member;
        if (!isStored && type === '3' && major === 0 && minor === 0)
          throw this.#whiteout('of overlayfs', member);
        return { ...facts, kind: type === '3' ? 'character device' : 'block device', major, minor };
      }
      case '6':
        return { ...facts, kind: 'fifo' };
      default:
        throw this.#refuse(
          `has a member of the unknown type "${type}", ${shown(member)}: make the tar with tar --format=posix`,
        );
    }
  }

  /** It hides a file of a layer below. */
  #whiteout(whose: string, member: TarMember): RootfsError {
    return this.#refuse(
      `has a whiteout ${whose}, ${shown(member)}: it is a layer; publish the whole, as docker export gives it`,
    );
  }

  /** What a symbolic link leads to. */
  #targetOf(member: TarMember): Buffer {
    const { linkTarget } = member;
    if (linkTarget.length > 0 && !linkTarget.includes(0)) return linkTarget;
    throw this.#refuse(
      `has a symbolic link to nothing, or to a name with NUL, ${shown(member)}: remove the link`,
    );
  }

  /** The file that a hard link refers to. */
  #linked(member: TarMember): TreeNode {
    const names = this.#namesOf(member.linkTarget, `a hard link, ${shown(member)},`);
    const last = names.pop();
    const node = last === undefined ? this.#root : this.#folderAt(names, member).children.get(last);
    if (node !== undefined && node.kind !== 'folder') {
      this.#addContents(node, member);
      return node;
    }
    const target = showPath(member.linkTarget.toString('latin1'));
    throw this.#refuse(
      `has a hard link, ${shown(member)}, to ${target}, which ` +
        `${node === undefined ? 'does not come before it' : 'is a folder'}: ${CREATE_AGAIN}`,
    );
  }

  /** Adds the contents of a hard link. cpio stores them with the last name of a file, and so do tars made of cpio. */
  #addContents(node: TreeNode, member: TarMember): void {
    const { sizeBytes } = member;
    const before = node.kind === 'file' ? node.content.sizeBytes : undefined;
    if (sizeBytes === 0 || sizeBytes === before) return;
    if (node.kind !== 'file' || before !== 0)
      throw this.#refuse(
        `has a hard link whose contents differ from its target, ${shown(member)}: create the tar again`,
      );
    node.content = this.#contentOf(member);
  }

  #contentOf({ sizeBytes, segments }: TarMember): FileContent {
    return sizeBytes === 0 ? EMPTY : new TarFile(sizeBytes, segments, this.#source);
  }

  /** Splits a path. A leading slash and `.` are ignored. */
  #namesOf(path: Buffer, what: string): string[] {
    const names = path
      .toString('latin1')
      .split('/')
      .filter((name) => name !== '' && name !== '.');
    const shownPath = showPath(path.toString('latin1')).slice(0, 200);
    if (names.includes('..'))
      throw this.#refuse(
        `has ${what} that leads out of its folder by "..", ${shownPath}: create the tar again with tar -C FOLDER .`,
      );
    if (names.some((name) => name.length > NAME_BYTES_LIMIT || name.includes('\0')))
      throw this.#refuse(
        `has ${what} with a name that Linux does not allow, ${shownPath}: it has NUL, or more than ` +
          `${NAME_BYTES_LIMIT} bytes, so rename the file`,
      );
    return names;
  }

  /** Creates missing folders. */
  #folderAt(names: readonly string[], member: TarMember): FolderNode {
    const folders = foldersAt(this.#root, names, (folder, name, depth) => {
      const known = folder.children.get(name);
      if (known?.kind === 'folder') return known;
      if (known?.kind === 'symlink') return known.target;
      if (known !== undefined)
        throw this.#refuse(`has ${shown(member)}, but its folder ${showPath(name)} is a ${known.kind}`);
      this.#count.add(depth);
      const made = this.#newFolder();
      folder.children.set(name, made);
      return made;
    });
    if (folders === undefined)
      throw this.#refuse(`has a loop of symbolic links on the way to ${shown(member)}`);
    return folders.at(-1) as FolderNode;
  }

  #newFolder(): FolderNode {
    return {
      kind: 'folder',
      mode: 0o755,
      uid: 0,
      gid: 0,
      mtimeNs: this.#reading.otherTimeNs,
      attributes: [],
      children: new Children<TreeNode>(),
    };
  }

  /** Parses a file in /etc with lines of `name:password:id:…`. */
  async #idsIn(name: string): Promise<ReadonlyMap<string, number>> {
    const etc = this.#root.children.get('etc');
    const file = etc?.kind === 'folder' ? etc.children.get(name) : undefined;
    if (file?.kind !== 'file' || file.content.sizeBytes > PASSWORD_FILE_LIMIT) return new Map();
    const bytes = Buffer.alloc(file.content.sizeBytes);
    await readContent(file.content, this.#file, 0, bytes);
    const lines = bytes
      .toString('utf8')
      .split('\n')
      .map((line) => line.split(':'));
    // Linux takes the first of several lines for one name.
    const valid = lines.filter(([, , id = '']) => /^\d+$/.test(id)).reverse();
    return new Map(valid.map(([user = '', , id]) => [user, Number(id)]));
  }

  #refuse(why: string): RootfsError {
    return refused(this.#reading.source, why);
  }
}

/** tar has no type for sockets. star makes them empty files, and says in pax what they are. */
function isSocket({ pax, sizeBytes }: TarMember): boolean {
  const type = pax.findLast(({ key }) => key === 'SCHILY.filetype')?.value.toString('latin1');
  return type === 'sock' && sizeBytes === 0;
}
