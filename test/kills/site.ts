// Folders of templates and clones for one visit of one point, and what is true of their templates.
import { constants, copyFile, mkdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { type RootfsConfig, RootfsRegistry } from '../../src/index.js';
import { sha256, writeSparse } from '../fixtures/files.js';
import { KiB, makeExt4Image, run } from '../fixtures/images.js';
import type { Artifacts } from './artifacts.js';
import { type Call, TEMPLATE_BYTES } from './operations.js';

/** Stands for the folder of a visit in the arguments of a call. */
export const IN_SITE = 'IN_SITE';

/** Stands for the repository of a visit, `HOST/NAME`, likewise. */
export const IN_REGISTRY = 'IN_REGISTRY';

/** Templates that are made once and cloned for every point, with their digests. */
export class Masters {
  readonly #folder: string;
  readonly #digests = new Map<string, string>();

  private constructor(folder: string) {
    this.#folder = folder;
  }

  static async make(folder: string): Promise<Masters> {
    const masters = new Masters(folder);
    const image = masters.path('image');
    await makeExt4Image(image, TEMPLATE_BYTES);
    // Other bytes, for the template that takes another's place.
    await masters.add('replacement', async (path) => {
      await copyFile(image, path);
      await run('debugfs', ['-w', '-R', 'rm /etc/hostname', path]);
    });
    await masters.add('compact', (path) => rewrite(image, path, false));
    await masters.add('scattered', (path) => rewrite(image, path, true));
    await rm(image);
    return masters;
  }

  async add(kind: string, make: (path: string) => Promise<void>): Promise<void> {
    await make(this.path(kind));
    this.#digests.set(kind, sha256(await readFile(this.path(kind))));
  }

  digestOf(kind: string): string {
    return this.#digests.get(kind) as string;
  }

  get digests(): readonly string[] {
    return [...this.#digests.values()];
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
  /** Where stacks and snapshots are pulled from, and pushed to. */
  readonly artifacts: Artifacts | undefined;
  readonly #masters: Masters;
  /** Kind and state of each template, by stack. */
  readonly #templates = new Map<string, { kind: string; state: FileState }>();
  /** Digests that a slot may have: of every template that is or was there. */
  readonly digests = new Set<string>();

  private constructor(root: string, masters: Masters, artifacts: Artifacts | undefined) {
    this.root = root;
    this.#masters = masters;
    this.artifacts = artifacts;
    this.templateDir = join(root, 'templates');
    this.clonesDir = join(root, 'clones');
    this.stateFolder = join(this.clonesDir, '.microvm-rootfs');
    this.jail = join(root, 'jail');
  }

  static async make(
    root: string,
    masters: Masters,
    template: string,
    artifacts: Artifacts | undefined,
  ): Promise<Site> {
    const site = new Site(root, masters, artifacts);
    await mkdir(site.jail);
    await site.addTemplate('debian', template);
    if (artifacts !== undefined) {
      for (const digest of masters.digests) site.digests.add(digest);
      await artifacts.makeRepository(site.repository);
    }
    return site;
  }

  get config(): Partial<RootfsConfig> {
    const { templateDir, clonesDir, artifacts } = this;
    if (artifacts === undefined) return { templateDir, clonesDir };
    return { templateDir, clonesDir, registries: { [artifacts.host]: { insecure: true } } };
  }

  /** Its name in the registry. */
  get repository(): string {
    return basename(this.root);
  }

  /** The call with the paths of this folder. */
  placed({ method, args }: Call): Call {
    const text = JSON.stringify(args)
      .replaceAll(IN_SITE, this.root)
      .replaceAll(IN_REGISTRY, `${this.artifacts?.host}/${this.repository}`);
    return { method, args: JSON.parse(text) };
  }

  newRegistry(): RootfsRegistry {
    return new RootfsRegistry(this.config);
  }

  async addTemplate(stack: string, kind: string): Promise<void> {
    const path = this.templatePath(stack);
    await mkdir(dirname(path), { recursive: true });
    await copyFile(this.#masters.path(kind), `${path}.new`, constants.COPYFILE_FICLONE);
    await rename(`${path}.new`, path);
    this.#templates.set(stack, { kind, state: await stateOf(path) });
    this.digests.add(this.digestOf(kind));
  }

  /** An image outside the catalog that a stack may be made of. */
  async addSource(name: string, kind: string): Promise<void> {
    await copyFile(this.masterOf(kind), join(this.root, name), constants.COPYFILE_FICLONE);
    this.digests.add(this.digestOf(kind));
  }

  /** The image that templates of this kind are copies of. */
  masterOf(kind: string): string {
    return this.#masters.path(kind);
  }

  digestOf(kind: string): string {
    return this.#masters.digestOf(kind);
  }

  async replaceTemplate(): Promise<void> {
    await this.addTemplate('debian', 'replacement');
  }

  /** What is not as it was with the templates: nobody ever writes to them. */
  async templateFaults(): Promise<string[]> {
    const faults: string[] = [];
    for (const [stack, { kind, state }] of this.#templates) {
      const now = await stateOf(this.templatePath(stack));
      for (const key of Object.keys(state) as (keyof FileState)[]) {
        if (now[key] !== state[key])
          faults.push(`template ${stack}: ${key} was ${state[key]}, is ${now[key]}`);
      }
      if (sha256(await readFile(this.templatePath(stack))) !== this.digestOf(kind))
        faults.push(`template ${stack} has other bytes`);
    }
    return faults;
  }

  async remove(): Promise<void> {
    await this.artifacts?.removeRepository(this.repository);
    await rm(this.root, { recursive: true, force: true });
  }

  templatePath(stack: string): string {
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
