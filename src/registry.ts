import { optionalBoolean, optionalSignal, requireKnownKeys, requireSizeBytes } from './arguments.js';
import { Catalog, parseStackName, type StackInfo } from './catalog.js';
import { type CloneOptions, parseCloneOptions } from './clone-options.js';
import { ClonesFolder } from './clones-folder.js';
import { completeConfig, configFromEnv, type RootfsConfig } from './config.js';
import { RootfsError } from './errors.js';
import { type ResizeOptions, resizeExt4Image } from './grow.js';
import { type RecoverReport, recover } from './recover.js';
import { type ReleaseOptions, releaseSlot } from './release.js';
import { Slots, type VmRootfs } from './slots.js';
import { Templates } from './templates.js';
import { parseVmId } from './vm-id.js';

export interface Abortable {
  readonly signal?: AbortSignal;
}

/**
 * A catalog of rootfs templates and the clones made of them, one for each VM.
 *
 * Any number of registries, also in several processes, may work on the same folders. Every method rejects with a
 * {@link RootfsError}; besides the codes that each method names: `INVALID_ARGUMENT` for options of a wrong type, `ABORT_ERR` where a
 * signal is taken, `UNSUPPORTED_PLATFORM`, `ADDON_NOT_LOADED`, `CLOSED`, and the system's own codes (`ENOSPC`, `EIO`, `EACCES`, …).
 *
 * @example
 * const registry = new RootfsRegistry({ templateDir: '/srv/templates', clonesDir: '/srv/vms' });
 * const disk = await registry.cloneForVm('vm-1', 'debian-12', { writable: true });
 * // … start the VM on disk.path …
 * await registry.release('vm-1');
 */
export class RootfsRegistry {
  readonly config: RootfsConfig;
  readonly #templates = new Templates();
  readonly #catalog: Catalog;
  readonly #folder: ClonesFolder;
  readonly #slots: Slots;

  /** Does no I/O. Throws `INVALID_ARGUMENT`. */
  constructor(config: Partial<RootfsConfig> = {}) {
    this.config = completeConfig(config);
    this.#catalog = new Catalog(this.config.templateDir, this.#templates);
    this.#folder = new ClonesFolder(this.config.clonesDir);
    this.#slots = new Slots(this.#folder, this.#templates, this.config);
  }

  /** A registry configured by the environment: see {@link configFromEnv}. */
  static fromEnv(env: Readonly<Record<string, string | undefined>> = process.env): RootfsRegistry {
    return new RootfsRegistry(configFromEnv(env));
  }

  /**
   * Every folder of `templateDir` that holds a regular `rootfs.ext4`, sorted by the UTF-8 bytes of its name; none if there is no
   * `templateDir`. A digest is computed once for a file as it is, and hashing a new template reads all of it. Rejects with
   * `TEMPLATE_CHANGED` if some template is being written to.
   */
  async stacks(options: Abortable = {}): Promise<StackInfo[]> {
    return this.#catalog.stacks(signalOf('listing stacks', options));
  }

  /**
   * One template of the catalog, or undefined if its folder or image is missing. Rejects with `INVALID_STACK_NAME`, `TEMPLATE_INVALID` (not a
   * regular file) and `TEMPLATE_CHANGED` (being written to).
   */
  async stack(name: string, options: Abortable = {}): Promise<StackInfo | undefined> {
    return this.#catalog.stack(parseStackName(name), signalOf(`looking at stack ${name}`, options));
  }

  /**
   * Gives a VM its own clone of a template: by reflink, else by hardlink (unless `writable: true`), else by a copy that keeps holes. The
   * slot appears at once and whole. The same id and stack again returns the slot that is there, whatever its size.
   *
   * Rejects with `INVALID_VM_ID`, `INVALID_STACK_NAME`, `STACK_NOT_FOUND`, `TEMPLATE_INVALID`, `TEMPLATE_CHANGED`; and for a slot that is there and
   * is not touched: `STAMP_MISMATCH` (of another template), `VM_ID_COLLISION` (of another id that has the same folder name), `SLOT_TORN` (not
   * whole), `SLOT_INVALID` (no slot of ours), `SLOT_IN_USE` (it would have to be made independent). `SHARED_INODE`: `owner` or `mode`
   * would change the template.
   */
  async cloneForVm(vmId: string, stack: string, options: CloneOptions = {}): Promise<VmRootfs> {
    const vm = parseVmId(vmId);
    const name = parseStackName(stack);
    const parsed = parseCloneOptions(`cloning ${name} for VM ${vm.safe}`, options);
    return this.#slots.clone({ ...parsed, vm, stack: name, templatePath: this.#catalog.templatePath(name) });
  }

  /**
   * {@link cloneForVm}, grown to `targetBytes`: file and ext4 filesystem. A slot that was cloned without a size is grown once. With the
   * template's own size nothing is grown and no program is run.
   *
   * Rejects like {@link cloneForVm}, and with `SHRINK_REFUSED` (smaller than the template), `SIZE_STAMP_MISMATCH` (grown to another size
   * before), `SLOT_IN_USE` (some process has the slot's image open), `TEMPLATE_CORRUPT`, `RESIZE_FAILED`, `E2FSCK_FAILED`, `RESIZE2FS_NOT_FOUND`,
   * `E2FSCK_NOT_FOUND`. After any of them the slot is as it was.
   */
  async cloneForVmWithSize(
    vmId: string,
    stack: string,
    targetBytes: number,
    options: CloneOptions = {},
  ): Promise<VmRootfs> {
    const sizeBytes = requireSizeBytes('targetBytes', targetBytes);
    if (options.sizeBytes !== undefined && options.sizeBytes !== sizeBytes) {
      throw new RootfsError(
        'INVALID_ARGUMENT',
        `sizeBytes is ${options.sizeBytes}, but targetBytes is ${sizeBytes}: give one of them`,
      );
    }
    return this.cloneForVm(vmId, stack, { ...options, sizeBytes });
  }

  /** {@link resizeExt4Image} with the programs of this registry's configuration. */
  async resizeExt4Image(path: string, targetBytes: number, options: Abortable = {}): Promise<void> {
    const { resize2fsBin, e2fsckBin } = this.config;
    requireKnownKeys('options', options, ['signal']);
    const programs: ResizeOptions = { resize2fsBin, e2fsckBin };
    return resizeExt4Image(path, targetBytes, { ...programs, ...options });
  }

  /**
   * Takes a VM's slot away, whoever has its image open (the holder keeps it until it closes it). Resolves to false if there is none. The
   * slot is gone when this resolves; its space comes back a little later, see {@link drain}.
   *
   * Rejects with `INVALID_VM_ID`, `VM_ID_COLLISION` (the slot is another id's), `SLOT_INVALID` (no slot of ours), `SLOT_IN_USE` (only with
   * `refuseInUse`).
   */
  async release(vmId: string, options: ReleaseOptions = {}): Promise<boolean> {
    const vm = parseVmId(vmId);
    requireKnownKeys('options', options, ['durable', 'refuseInUse']);
    optionalBoolean('durable', options.durable);
    optionalBoolean('refuseInUse', options.refuseInUse);
    return releaseSlot(this.#folder, vm, options);
  }

  /**
   * Puts the clones folder in order after crashes and power cuts: removes what dead processes left, and slots that are not whole unless
   * some process has their image open. Safe at any time, beside other processes, and any number of times.
   */
  async recover(options: Abortable = {}): Promise<RecoverReport> {
    return recover(
      this.#folder,
      (sha256) => this.#templates.sizeOf(sha256),
      signalOf('recovering the clones folder', options),
    );
  }

  /** Resolves when the space of released slots has been given back. */
  async drain(): Promise<void> {
    return this.#folder.drain();
  }

  /** Ends background work and closes all descriptors. The registry is of no use afterwards (`CLOSED`). */
  async close(): Promise<void> {
    await this.#folder.close();
    this.#templates.close();
  }
}

function signalOf(what: string, options: Abortable): AbortSignal | undefined {
  requireKnownKeys('options', options, ['signal']);
  return optionalSignal(what, options.signal);
}
