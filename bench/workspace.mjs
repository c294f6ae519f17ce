// One mounted file system during the run: its templates, made when first asked for, and folders for what the measures
// make.
import { readdirSync, readlinkSync } from 'node:fs';
import { mkdir, mkdtemp, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { output, run } from './command.mjs';
import { formatBytes } from './format.mjs';
import { makeContiguousImage, makeRealisticImage, makeSparseFile } from './templates.mjs';

/** @typedef {'one-extent' | 'realistic' | 'sparse' | `extents-${number}`} TemplateName */

/**
 * @typedef {object} Template
 * @property {TemplateName} stack
 * @property {string} path
 * @property {number} sizeBytes
 * @property {number} blocksBytes
 * @property {string} about
 */

const MiB = 2 ** 20;
const GiB = 2 ** 30;

export class Workspace {
  /** @type {Map<TemplateName, Promise<Template>>} */
  #templates = new Map();
  /** @type {(() => unknown)[]} */
  #atEnd = [];
  #place;
  #imageMiB;

  /**
   * @param {object} parts
   * @param {string} parts.filesystem
   * @param {import('./filesystems.mjs').Place} parts.place
   * @param {string} parts.scratch a folder on the machine's own file system
   * @param {boolean} parts.quick
   * @param {number} parts.imageMiB of the realistic template
   * @param {any} parts.library the module
   * @param {string} parts.libraryFolder
   * @param {(name: import('./floor-programs.mjs').FloorName) => string} parts.floor
   */
  constructor({ filesystem, place, scratch, quick, imageMiB, library, libraryFolder, floor }) {
    this.filesystem = filesystem;
    this.path = place.path;
    this.scratch = scratch;
    this.#place = place;
    this.quick = quick;
    this.#imageMiB = imageMiB;
    this.library = library;
    this.libraryFolder = libraryFolder;
    this.floor = floor;
    this.templateDir = join(this.path, 'templates');
    this.clonesDir = join(this.path, 'vms');
    this.registry = new library.RootfsRegistry({ templateDir: this.templateDir, clonesDir: this.clonesDir });
    this.onEnd(() => this.registry.close());
  }

  /** @param {TemplateName} name */
  template(name) {
    let template = this.#templates.get(name);
    if (template === undefined) {
      template = this.#make(name);
      this.#templates.set(name, template);
    }
    return template;
  }

  /**
   * A new, empty folder on this file system.
   * @param {string} purpose
   */
  newFolder(purpose) {
    return mkdtemp(join(this.path, `${purpose.replaceAll(/[^a-z0-9]+/gi, '-')}-`));
  }

  /** Lets the file system write what it has put off, so that the next measure does not pay for it. */
  settle() {
    return run('sync', ['-f', this.path]);
  }

  /** @param {() => unknown} work */
  onEnd(work) {
    this.#atEnd.push(work);
  }

  async end() {
    for (const work of this.#atEnd.reverse()) await work();
    // It goes with the mount namespace in any case.
    const open = openFilesUnder(this.path);
    if (open.length > 0)
      console.log(`\nStill open on ${this.filesystem} after close():\n  ${open.join('\n  ')}`);
    else await this.#place.leave();
  }

  /**
   * @param {TemplateName} stack
   * @returns {Promise<Template>}
   */
  async #make(stack) {
    const folder = join(this.templateDir, stack);
    await mkdir(folder, { recursive: true });
    const path = join(folder, 'rootfs.ext4');
    if (stack === 'one-extent') await makeContiguousImage(path, 64 * MiB);
    else if (stack === 'realistic') await makeRealisticImage(path, this.#realisticSize(), this.scratch);
    else if (stack === 'sparse') await makeSparseFile(path, this.#sparseSize());
    else await output(this.floor('scatter'), [path, stack.replace('extents-', '')]);
    const { size, blocks } = await stat(path);
    const about = `${formatBytes(size)}, ${formatBytes(blocks * 512)}${await inExtents(path)}`;
    return { stack, path, sizeBytes: size, blocksBytes: blocks * 512, about };
  }

  #realisticSize() {
    const sizeBytes = this.#imageMiB * MiB;
    return { sizeBytes, dataBytes: (sizeBytes / (2 * GiB)) * (this.quick ? 96 : 800) * MiB };
  }

  #sparseSize() {
    return this.quick
      ? { sizeBytes: 256 * MiB, dataBytes: 100 * MiB }
      : { sizeBytes: GiB, dataBytes: 400 * MiB };
  }
}

/**
 * How many extents a file lies in, in words. None on a file system that does not tell, such as ZFS.
 * @param {string} path
 */
async function inExtents(path) {
  const found = await output('filefrag', [path]).catch(() => '');
  const [, extents] = /: (\d+ extents?) found/.exec(found) ?? [];
  return extents === undefined ? '' : ` in ${extents}`;
}

/**
 * What this process has open there.
 * @param {string} folder
 */
function openFilesUnder(folder) {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`);
      return path.startsWith(folder) ? [path] : [];
    } catch {
      return []; // the descriptor of this very listing
    }
  });
}
