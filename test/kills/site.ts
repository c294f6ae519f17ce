// Folders of templates and clones for one visit of one point, and what is true of their templates.
import { constants, copyFile, mkdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type RootfsConfig, RootfsRegistry } from '../../src/index.js';
import { sha256, writeSparse } from '../fixtures/files.js';
import { KiB, makeExt4Image, run } from '../fixtures/images.js';
import { type Call, TEMPLATE_BYTES } from './operations.js';

/** Stands for the folder of a visit in the arguments of a call. */
export const IN_SITE = 'IN_SITE';

/** Templates that are made once and cloned for every point, with their digests. */
export class Masters {
  readonly #folder: string;
  readonly digests: ReadonlyMap<string, string>;

  private constructor(folder: string, digests: ReadonlyMap<string, string>) {
    this.#folder = folder;
    this.digests = digests;
  }

  static async make(folder: string): Promise<Masters> {
    const digests = new Map<string, string>();
    const path = (kind: string) => join(folder, `${kind}.master`);
    await makeExt4Image(path('image'), TEMPLATE_BYTES);
    // Other bytes, for the template that takes another's place.
    await copyFile(path('image'), path('replacement'));
    await run('debugfs', ['-w', '-R', 'rm /etc/hostname', path('replacement')]);
    for (const kind of ['compact', 'scattered'])
      await rewrite(path('image'), path(kind), kind === 'scattered');
    await rm(path('image'));
    for (const kind of ['compact', 'scattered', 'replacement'])
      digests.set(kind, sha256(await readFile(path(kind))));
    return new Masters(folder, digests);
  }

  path(kind: string): string {
    return join(this.#folder, `${kind}.master`);
  }
}

interface FileState {
  readonly inode: bigint;
  readonly mtimeNs: bigint;
  readonly mode: bigint;
  readonly owner: bigint;
  readonly sizeBytes: bigint;
}

export class Site {
  readonly root: string;
  readonly templateDir: string;
  readonly clonesDir: string;
  readonly stateFolder: string;
  /** Where images are exported to. */
  readonly jail: string;
  readonly #masters: Masters;
  /** Kind and state of each template, by stack. */
  readonly #templates = new Map<string, { kind: string; state: FileState }>();
  /** Digests that a slot may have: of every template that is or was there. */
  readonly digests = new Set<string>();

  private constructor(root: string, masters: Masters) {
    this.root = root;
    this.#masters = masters;
    this.templateDir = join(root, 'templates');
    this.clonesDir = join(root, 'clones');
    this.stateFolder = join(this.clonesDir, '.microvm-rootfs');
    this.jail = join(root, 'jail');
  }

  static async make(root: string, masters: Masters, template: string): Promise<Site> {
    const site = new Site(root, masters);
    await mkdir(site.jail);
    await site.addTemplate('debian', template);
    return site;
  }

  get config(): Partial<RootfsConfig> {
    const { templateDir, clonesDir } = this;
    return { templateDir, clonesDir };
  }

  /** The call with the paths of this folder. */
  placed({ method, args }: Call): Call {
    return { method, args: JSON.parse(JSON.stringify(args).replaceAll(IN_SITE, this.root)) };
  }

  newRegistry(): RootfsRegistry {
    return new RootfsRegistry(this.config);
  }

  async addTemplate(stack: string, kind: string): Promise<void> {
    const path = this.#template(stack);
    await mkdir(dirname(path), { recursive: true });
    await copyFile(this.#masters.path(kind), `${path}.new`, constants.COPYFILE_FICLONE);
    await rename(`${path}.new`, path);
    this.#templates.set(stack, { kind, state: await stateOf(path) });
    this.digests.add(this.#masters.digests.get(kind) as string);
  }

  /** An image outside the catalog that a stack may be made of. */
  async addSource(name: string, kind: string): Promise<void> {
    await copyFile(this.#masters.path(kind), join(this.root, name), constants.COPYFILE_FICLONE);
    this.digests.add(this.#masters.digests.get(kind) as string);
  }

  async replaceTemplate(): Promise<void> {
    await this.addTemplate('debian', 'replacement');
  }

  /** What is not as it was with the templates: nobody ever writes to them. */
  async templateFaults(): Promise<string[]> {
    const faults: string[] = [];
    for (const [stack, { kind, state }] of this.#templates) {
      const now = await stateOf(this.#template(stack));
      for (const key of Object.keys(state) as (keyof FileState)[]) {
        if (now[key] !== state[key])
          faults.push(`template ${stack}: ${key} was ${state[key]}, is ${now[key]}`);
      }
      if (sha256(await readFile(this.#template(stack))) !== this.#masters.digests.get(kind))
        faults.push(`template ${stack} has other bytes`);
    }
    return faults;
  }

  async remove(): Promise<void> {
    await rm(this.root, { recursive: true, force: true });
  }

  #template(stack: string): string {
    return join(this.templateDir, stack, 'rootfs.ext4');
  }
}

async function stateOf(path: string): Promise<FileState> {
  const { ino, mtimeNs, mode, uid, size } = await stat(path, { bigint: true });
  return { inode: ino, mtimeNs, mode, owner: uid, sizeBytes: size };
}

/** The same bytes, in one extent or with holes between many. */
async function rewrite(from: string, to: string, scattered: boolean): Promise<void> {
  const bytes = await readFile(from);
  const piece = (scattered ? 4 : 4096) * KiB;
  const data: Record<number, Buffer> = {};
  for (let offset = 0; offset < bytes.length; offset += piece) {
    const part = bytes.subarray(offset, offset + piece);
    if (part.some((byte) => byte !== 0)) data[offset] = part;
  }
  await writeSparse(to, bytes.length, data);
}
