// What lies on the disk that every history starts with: three stacks, and the knowledge of every image that can be made
// of them.
import { mkdir, open, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { PristineImages } from '../fixtures/disk-states.js';
import { writeSparse } from '../fixtures/files.js';
import { makeGrowable, TEMPLATE_BYTES } from '../fixtures/growable.js';
import { KiB, pattern } from '../fixtures/images.js';

/**
 * `ext4` can be grown, `scattered` has too many extents to be sealed by reflink, `changing` is replaced now and then.
 */
export type Stack = 'ext4' | 'scattered' | 'changing';

const BYTES: Readonly<Record<Stack, number>> = {
  ext4: TEMPLATE_BYTES,
  scattered: 640 * KiB,
  changing: 200 * KiB,
};

export class CutHost {
  readonly templateDir: string;
  readonly clonesDir: string;
  readonly pristine = new PristineImages();
  /** Where a VM may write in any image of `ext4`, grown or not: in the data of a file. */
  #markOffset = 0;
  readonly #digests = new Map<Stack, string>();

  constructor(readonly path: string) {
    this.templateDir = join(path, 'templates');
    this.clonesDir = join(path, 'clones');
  }

  /** Where images are exported to. */
  get jail(): string {
    return join(this.path, 'jail');
  }

  get config() {
    return { templateDir: this.templateDir, clonesDir: this.clonesDir };
  }

  /** The digest that a stack's template had at first. */
  digestOf(stack: Stack): string {
    return this.#digests.get(stack) as string;
  }

  /** How long a template is, whatever was cloned from it. */
  templateBytes(stack: Stack): number {
    return BYTES[stack];
  }

  markOffset(stack: string): number {
    return stack === 'ext4' ? this.#markOffset : 0;
  }

  templatePath(stack: Stack): string {
    return join(this.templateDir, stack, 'rootfs.ext4');
  }

  image(safeId: string): string {
    return join(this.clonesDir, safeId, 'rootfs.ext4');
  }

  async prepare(): Promise<void> {
    await mkdir(this.templateDir, { recursive: true });
    const { bytes, markOffset } = await makeGrowable(this.path, this.pristine);
    this.#markOffset = markOffset;
    await this.#place('ext4', (path) => writeFile(path, bytes));
    const islands = Array.from({ length: 8 }, (_, i) => [i * 80 * KiB, pattern(8 * KiB, i + 1)] as const);
    await this.#place('scattered', (path) => writeSparse(path, BYTES.scattered, Object.fromEntries(islands)));
    await this.#place('changing', (path) => writeFile(path, pattern(BYTES.changing)));
    await writeFile(join(this.path, 'of somebody else'), 'x');
  }

  /**
   * Puts another template in the place of `changing`, as a builder does that sets the length first; a careless one does
   * not flush it. Returns its digest.
   */
  async replaceChanging(version: number, flushed: boolean): Promise<string> {
    const bytes = pattern(BYTES.changing, 1000 + version);
    const digest = this.pristine.add(bytes);
    const temporary = join(this.path, 'changing.new');
    const file = await open(temporary, 'w');
    try {
      await file.truncate(bytes.length);
      await file.write(bytes);
      if (flushed) await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, this.templatePath('changing'));
    return digest;
  }

  async #place(stack: Stack, write: (path: string) => Promise<void>): Promise<void> {
    const path = this.templatePath(stack);
    await mkdir(dirname(path));
    await write(path);
    this.#digests.set(stack, this.pristine.add(await readFile(path)));
  }
}
