// What the layers of a container image list, and with which times. umoci makes folders that no layer lists, and sets
// the time of a listed folder to the present when it makes one in it. Not every file system can keep every time.

import type { Pause } from '../../system/pause.js';
import { nearestTime } from '../ext4/inode.js';
import { isFolder, shown, type TarMember } from '../tar/members.js';
import { TarDamaged } from '../tar/tar-damaged.js';
import { Children } from './children.js';
import { foldersAt } from './folders-at.js';
import { WHITEOUT_PREFIX } from './layer-marks.js';

interface Entry {
  /** The last that listed it or a file in it. */
  layer: number;
  readonly mtimeNs: bigint;
}

export interface ListedFolder extends Omit<Entry, 'mtimeNs'> {
  readonly kind: 'folder';
  /** Undefined for one that is not listed itself. */
  readonly mtimeNs: bigint | undefined;
  readonly children: Children<ListedEntry>;
}

interface ListedLink extends Entry {
  readonly kind: 'symlink';
  readonly target: Buffer;
}

interface ListedFile extends Entry {
  readonly kind: 'file';
}

export type ListedEntry = ListedFolder | ListedLink | ListedFile;

const OPAQUE = `${WHITEOUT_PREFIX}${WHITEOUT_PREFIX}.opq`;

const NO_LAYER = 0;

/** Folders, links, and files with a time that a file system may not keep. */
export class ListedFiles {
  readonly root: ListedFolder = newFolder();
  readonly #onFolder: (depth: number) => void;
  readonly #pause: Pause;
  #layer = NO_LAYER;

  /** `onFolder` is called for each folder that is not listed before what is in it. */
  constructor(onFolder: (depth: number) => void, pause: Pause) {
    this.#onFolder = onFolder;
    this.#pause = pause;
  }

  beginLayer(): void {
    this.#layer++;
  }

  /** As umoci applies it. */
  async add(member: TarMember): Promise<void> {
    const names = namesOf(member.path);
    const name = names.pop();
    // The image has its own root folder.
    if (name === undefined) return;
    const folders = this.#foldersAt(names, member);
    const { children } = folders.at(-1) as ListedFolder;
    if (name === OPAQUE) return this.#hideAll(children);
    if (name.startsWith(WHITEOUT_PREFIX)) return this.#hide(children, name.slice(WHITEOUT_PREFIX.length));
    const entry = this.#entryOf(member, children.get(name));
    if (entry === undefined) children.delete(name);
    else children.set(name, entry);
    for (const folder of folders) folder.layer = this.#layer;
  }

  #entryOf(member: TarMember, before: ListedEntry | undefined): ListedEntry | undefined {
    const layer = this.#layer;
    if (member.type === '1') {
      const linked = this.#linked(member);
      return linked && { ...linked, layer };
    }
    const mtimeNs = nearestTime(member.mtimeNs);
    if (isFolder(member)) {
      const children = before?.kind === 'folder' ? before.children : new Children<ListedEntry>();
      return { kind: 'folder', layer, mtimeNs, children };
    }
    if (member.type === '2') return { kind: 'symlink', layer, mtimeNs, target: member.linkTarget };
    return isKeptAnywhere(mtimeNs) ? undefined : { kind: 'file', layer, mtimeNs };
  }

  #linked(member: TarMember): Exclude<ListedEntry, ListedFolder> | undefined {
    const names = namesOf(member.linkTarget);
    const last = names.pop();
    if (last === undefined) return undefined;
    const entry = this.#foldersAt(names, member).at(-1)?.children.get(last);
    return entry?.kind === 'folder' ? undefined : entry;
  }

  /** A whiteout hides what lower layers have, even if it comes after what its own layer puts there. */
  async #hide(children: Children<ListedEntry>, name: string): Promise<void> {
    const entry = children.get(name);
    if (entry !== undefined && entry.layer !== this.#layer) children.delete(name);
    else if (entry?.kind === 'folder') await this.#hideAll(entry.children);
  }

  async #hideAll(children: Children<ListedEntry>): Promise<void> {
    for (const name of children.keys()) {
      if (this.#pause.isDue) await this.#pause.take();
      await this.#hide(children, name);
    }
  }

  #foldersAt(names: readonly string[], member: TarMember): ListedFolder[] {
    const folders = foldersAt(this.root, names, (folder, name, depth) => {
      const known = folder.children.get(name);
      if (known?.kind === 'folder') return known;
      if (known?.kind === 'symlink') return known.target;
      this.#onFolder(depth);
      const made = newFolder();
      folder.children.set(name, made);
      return made;
    });
    if (folders === undefined)
      throw new TarDamaged(`has a loop of symbolic links on the way to ${shown(member)}`);
    return folders;
  }
}

/** `..` is resolved before any link is followed. */
export function namesOf(path: Buffer): string[] {
  const names: string[] = [];
  for (const name of path.toString('latin1').split('/'))
    if (name === '..') names.pop();
    else if (name !== '' && name !== '.') names.push(name);
  return names;
}

function newFolder(): ListedFolder {
  return { kind: 'folder', layer: NO_LAYER, mtimeNs: undefined, children: new Children<ListedEntry>() };
}

/** Whole seconds in 31 bits: also in an ext4 with inodes of 128 bytes. */
function isKeptAnywhere(timeNs: bigint): boolean {
  return timeNs >= 0n && timeNs < 2n ** 31n * 1_000_000_000n && timeNs % 1_000_000_000n === 0n;
}
