import {
  optionalBoolean,
  optionalFunction,
  optionalSignal,
  requireKnownKeys,
  requireSizeBytes,
  show,
} from './arguments.js';
import { Background } from './background.js';
import { Catalog, parseStackName, type StackInfo } from './catalog.js';
import { CLONE_OPTION_KEYS, type CloneOptions, parseCloneOptions } from './clone-options.js';
import { type CloneRequest, poolKey } from './clone-plan.js';
import { ClonesFolder } from './clones-folder.js';
import { completeConfig, configFromEnv, type RootfsConfig } from './config.js';
import { DigestCache } from './digest-cache.js';
import { RootfsError, rootfsError } from './errors.js';
import { collectGarbage, type GcReport } from './gc.js';
import { type ResizeOptions, resizeExt4Image } from './grow.js';
import { type MakeReady, Pool } from './pool.js';
import { type RecoverReport, recover } from './recover.js';
import { type ReleaseOptions, releaseSlot } from './release.js';
import { SealedImages } from './sealed-images.js';
import { type SlotUse, slotInUse } from './slot-use.js';
import { Slots } from './slots.js';
import { type Template, Templates } from './templates.js';
import { type VerifyOptions, type VerifyReport, verify } from './verify.js';
import { parseVmId } from './vm-id.js';
import type { VmRootfs } from './vm-rootfs.js';

export interface Abortable {
  readonly signal?: AbortSignal;
}

export interface CloneManyRequest {
  readonly vmId: string;
  readonly stack: string;
  readonly options?: CloneOptions;
}

export interface GcOptions extends Abortable {
  /** The ids whose slots stay, as they were given to `cloneForVm`. */
  readonly keep: Iterable<string>;
  /** Release nothing, only tell. */
  readonly dryRun?: boolean;
}

export interface PrewarmOptions extends Omit<CloneOptions, 'durable'> {
  /** How many ready slots to keep. */
  readonly count: number;
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
  readonly #background = new Background();
  readonly #folder: ClonesFolder;
  readonly #templates: Templates;
  readonly #catalog: Catalog;
  readonly #sealed: SealedImages;
  readonly #pool: Pool;
  readonly #slots: Slots;

  /** Does no I/O. Throws `INVALID_ARGUMENT`. */
  constructor(config: Partial<RootfsConfig> = {}) {
    this.config = completeConfig(config);
    const { templateDir, clonesDir, sealing } = this.config;
    this.#folder = new ClonesFolder(clonesDir);
    this.#templates = new Templates(new DigestCache(this.#folder), (before, gone) =>
      this.#dropMadeOf(before, gone),
    );
    this.#catalog = new Catalog(templateDir, this.#templates);
    this.#sealed = new SealedImages(this.#folder, this.config);
    this.#pool = new Pool(this.#folder, this.#background);
    const sealed = sealing === 'auto' ? this.#sealed : undefined;
    this.#slots = new Slots(this.#folder, this.#templates, sealed, this.#pool, this.config);
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
    return this.#slots.clone(this.#request(vmId, stack, options));
  }

  /**
   * {@link cloneForVm} on the calling thread, for a scheduler that would rather spend the microseconds of the clone there than those of a hop
   * to another thread and back. Warm work only: a template whose digest is known and that is sealed (or cannot be), no copying, no
   * growing.
   *
   * Throws like {@link cloneForVm}, and `NOT_WARM` where more would be needed: {@link cloneForVm} does that, and {@link prewarm} does it
   * beforehand.
   */
  cloneForVmSync(vmId: string, stack: string, options: CloneOptions = {}): VmRootfs {
    return this.#slots.cloneSync(this.#request(vmId, stack, options));
  }

  /**
   * Many clones that share trips to other threads. Resolves to one settled result for each request, in order; one that fails, or is wrong in
   * itself, does not keep the others.
   */
  async cloneMany(requests: readonly CloneManyRequest[]): Promise<PromiseSettledResult<VmRootfs>[]> {
    if (!Array.isArray(requests))
      throw new RootfsError('INVALID_ARGUMENT', `requests must be an array, got ${show(requests)}`);
    const results: PromiseSettledResult<VmRootfs>[] = [];
    const parsed: { index: number; request: CloneRequest }[] = [];
    requests.forEach((request: CloneManyRequest, index) => {
      try {
        requireKnownKeys(`requests[${index}]`, request, ['vmId', 'stack', 'options']);
        parsed.push({ index, request: this.#request(request.vmId, request.stack, request.options ?? {}) });
      } catch (reason) {
        results[index] = { status: 'rejected', reason };
      }
    });
    const settled = await this.#slots.cloneMany(parsed.map(({ request }) => request));
    parsed.forEach(({ index }, i) => {
      results[index] = settled[i] as PromiseSettledResult<VmRootfs>;
    });
    return results;
  }

  /**
   * Keeps `count` ready slots of a stack from now on, so that a clone with the same size, owner and mode is a rename (`pooled: true`). The pool
   * is filled again behind the clones when half of it is gone. With `count: 0` the template is only hashed and sealed, and a pool that this
   * registry kept is given up. Resolves when the slots are there. Where clones are copies, each ready slot takes the space of one.
   *
   * Rejects like {@link cloneForVmWithSize}.
   */
  async prewarm(stack: string, options: PrewarmOptions): Promise<void> {
    requireKnownKeys('options', options, ['count', 'sizeBytes', 'writable', 'owner', 'mode', 'signal']);
    const { count, ...cloneOptions } = options;
    requireSizeBytes('count', count);
    // Ready slots are always independent of the template, so they serve every guest.
    const request = this.#request('ready', stack, { ...cloneOptions, writable: true });
    const template = await this.#slots.warmUp(request);
    const key = poolKey(request, template);
    const { signal, ...lasting } = options;
    const make: MakeReady = (key, prefix) =>
      this.#slots.makeReady({ ...request, signal: undefined }, key, prefix);
    try {
      await this.#pool.keep(key, count, signal, make, () => this.prewarm(stack, lasting));
    } catch (error) {
      throw rootfsError(`making ready slots of ${request.templatePath}`, error);
    }
  }

  /** What was made of a template as it was before is of no use any more, unless a VM has it. */
  #dropMadeOf(before: Template, gone: boolean): void {
    this.#pool.drop(before, gone);
    if (this.#folder.opened === undefined) return;
    this.#background.start(`removing the sealed images of ${before.path}`, async () => {
      await this.#sealed.collect();
    });
  }

  #request(vmId: string, stack: string, options: CloneOptions): CloneRequest {
    const vm = parseVmId(vmId);
    const { name, templatePath } = this.#catalog.located(stack);
    const { writable, sizeBytes, owner, mode, durable, signal } = parseCloneOptions(
      () => `cloning ${name} for VM ${vm.safe}`,
      options,
    );
    return { vm, stack: name, templatePath, writable, sizeBytes, owner, mode, durable, signal };
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
    requireKnownKeys('options', options, CLONE_OPTION_KEYS);
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
   * some process has their image open. Safe at any time, beside other processes, and any number of times. A slot that cannot be looked at
   * (`EIO`, `EACCES`) keeps nothing else from being done: the call rejects with the first such error when all else is in order.
   */
  async recover(options: Abortable = {}): Promise<RecoverReport> {
    return recover(
      this.#folder,
      this.#sealed,
      this.#pool,
      (sha256) => this.#templates.sizeOf(sha256),
      signalOf('recovering the clones folder', options),
    );
  }

  /**
   * Whether some process has the image of a VM's slot open: a VMM, a loop device, a backup. `unknown` where the filesystem has no leases (FUSE, NFS).
   * The answer is of the moment.
   *
   * Rejects with `INVALID_VM_ID`, `SLOT_NOT_FOUND`, `VM_ID_COLLISION`, `SLOT_INVALID`, `SLOT_TORN` (its raw id is).
   */
  async slotInUse(vmId: string): Promise<SlotUse> {
    return slotInUse(this.#folder, parseVmId(vmId));
  }

  /**
   * Releases every whole slot whose id is not in `keep`, unless its image is in use or that cannot be told. Torn slots are left to
   * {@link recover}; files, links and folders that are no slots of ours are never touched. A slot that is cloned meanwhile for an id that
   * `keep` lacks goes as well: collect while you start no such VM.
   *
   * Rejects with `INVALID_ARGUMENT` and `INVALID_VM_ID`, before anything is released.
   */
  async gc(options: GcOptions): Promise<GcReport> {
    requireKnownKeys('options', options, ['keep', 'dryRun', 'signal']);
    const { keep } = options;
    if (typeof keep !== 'object' || keep === null || !(Symbol.iterator in keep)) {
      throw new RootfsError(
        'INVALID_ARGUMENT',
        `keep must be an array or a set of VM ids, got ${show(keep)}`,
      );
    }
    const ids = new Set([...keep].map((id) => parseVmId(id).raw));
    const dryRun = optionalBoolean('dryRun', options.dryRun) ?? false;
    return collectGarbage(this.#folder, ids, dryRun, optionalSignal('collecting slots', options.signal));
  }

  /**
   * Reads templates and sealed images again, and with `clones` those clones that share no blocks, and names each that does not hold the bytes
   * that its digest is of. Templates whose digest is not known yet are not read. Changes nothing.
   */
  async verify(options: VerifyOptions = {}): Promise<VerifyReport> {
    requireKnownKeys('options', options, ['clones', 'signal', 'onProgress']);
    optionalBoolean('clones', options.clones);
    optionalFunction('onProgress', options.onProgress);
    const signal = optionalSignal(`verifying ${this.config.clonesDir}`, options.signal);
    return verify(this.#folder, await this.#catalog.known(signal), this.config.e2fsckBin, options);
  }

  /** Resolves when background work is done: the space of released slots was given back, the pool is full. */
  async drain(): Promise<void> {
    await this.#background.drain();
    await this.#folder.drain();
  }

  /** Ends background work and closes all descriptors. The registry is of no use afterwards (`CLOSED`). */
  async close(): Promise<void> {
    this.#pool.close();
    await this.#background.close();
    await this.#folder.close();
    this.#sealed.close();
    this.#templates.close();
  }
}

function signalOf(what: string, options: Abortable): AbortSignal | undefined {
  requireKnownKeys('options', options, ['signal']);
  return optionalSignal(what, options.signal);
}
