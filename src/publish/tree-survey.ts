// What a tree of files will need in a filesystem of its own, and a mark by which a change of it is seen.

import { lstat, readdir, utimes } from 'node:fs/promises';
import { native } from '../addon/native.js';
import type { Task } from '../system/task.js';

export interface TreeSurvey {
  readonly inodes: number;
  /** Of {@link TREE_BLOCK_BYTES}, for contents and folders. */
  readonly blocks: number;
  /** Another one if anything in the tree was added, removed or written to. */
  readonly mark: string;
}

export const TREE_BLOCK_BYTES = 4096;

// Files in one trip.
const BATCH = 256;

const SLASH = Buffer.from('/');

/** Folders that a tar does not list are made when it is unpacked: with that time, the same tar would never give the same image. */
export interface AdvanceTimes {
  readonly newerThanMs: number;
  readonly timeS: number;
}

/** Sparse files count with their whole length. */
export async function surveyTree(task: Task, root: string, advanceTimes?: AdvanceTimes): Promise<TreeSurvey> {
  const survey = new Survey(advanceTimes);
  // Paths are bytes: a name need not be UTF-8.
  const folders: Buffer[] = [Buffer.from(root)];
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    task.checkAborted();
    folders.push(...(await survey.add(folder)));
  }
  return survey;
}

class Survey implements TreeSurvey {
  inodes = 0;
  blocks = 0;
  mark = '';
  readonly #advanceTimes: AdvanceTimes | undefined;
  readonly #linked = new Set<string>();

  constructor(advanceTimes: AdvanceTimes | undefined) {
    this.#advanceTimes = advanceTimes;
  }

  /** Gives the folders in it. */
  async add(folder: Buffer): Promise<Buffer[]> {
    const { mtimeNs, ctimeNs, mtimeMs } = await lstat(folder, { bigint: true });
    if (this.#advanceTimes !== undefined && Number(mtimeMs) >= this.#advanceTimes.newerThanMs)
      await utimes(folder, this.#advanceTimes.timeS, this.#advanceTimes.timeS);
    const entries = await readdir(folder, { withFileTypes: true, encoding: 'buffer' });
    const files: Buffer[] = [];
    const folders: Buffer[] = [];
    const marks = [folder.toString('latin1'), `${mtimeNs} ${ctimeNs}`];
    let entryBytes = 0;
    for (const entry of entries.sort((a, b) => Buffer.compare(a.name, b.name))) {
      const path = Buffer.concat([folder, SLASH, entry.name]);
      entryBytes += 8 + Math.ceil(entry.name.length / 4) * 4;
      if (entry.isFile()) files.push(path);
      else if (entry.isDirectory()) folders.push(path);
      else this.#addOther(entry.isSymbolicLink());
      marks.push(entry.name.toString('latin1'));
    }
    this.inodes++;
    // A tenth for the ends of blocks, where the next entry does not fit.
    this.blocks += Math.max(1, Math.ceil((entryBytes * 1.1) / TREE_BLOCK_BYTES));
    for (let i = 0; i < files.length; i += BATCH)
      marks.push(...(await this.#addFiles(files.slice(i, i + BATCH))));
    this.mark = native().sha256([this.mark, ...marks].join('\n'));
    return folders;
  }

  #addOther(isSymbolicLink: boolean): void {
    this.inodes++;
    if (isSymbolicLink) this.blocks++;
  }

  async #addFiles(paths: readonly Buffer[]): Promise<string[]> {
    const identities = await native().identities(paths.map((path) => path.toString('utf8')));
    return Promise.all(
      paths.map(async (path, i) => {
        const { device, inode, sizeBytes, mtimeNs, ctimeNs, links } = identities[i] ?? (await statOf(path));
        const file = `${device}:${inode}`;
        if (links === 1 || !this.#linked.has(file)) {
          if (links > 1) this.#linked.add(file);
          this.inodes++;
          this.blocks += Math.ceil(sizeBytes / TREE_BLOCK_BYTES);
        }
        return `${file} ${sizeBytes} ${mtimeNs} ${ctimeNs}`;
      }),
    );
  }
}

/** Of a name that is not UTF-8. */
async function statOf(path: Buffer) {
  const { dev, ino, size, mtimeNs, ctimeNs, nlink } = await lstat(path, { bigint: true });
  return { device: dev, inode: ino, sizeBytes: Number(size), mtimeNs, ctimeNs, links: Number(nlink) };
}
