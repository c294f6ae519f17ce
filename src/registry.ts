import { Catalog, parseStackName, type StackInfo } from './catalog/catalog.js';
import { DigestCache } from './catalog/digest-cache.js';
import { StackNames } from './catalog/stack-names.js';
import { type Template, Templates } from './catalog/templates.js';
import { CLONE_OPTION_KEYS, type CloneOptions, parseCloneOptions } from './clone/clone-options.js';
import { type CloneRequest, poolKey } from './clone/clone-plan.js';
import { Slots } from './clone/cloner.js';
import { type MakeReady, Pool } from './clone/pool.js';
import { type ReadySlots, readySlots } from './clone/ready-slots.js';
import type { VmRootfs } from './clone/vm-rootfs.js';
import { ManagedFolder } from './folder/managed-folder.js';
import { type ResizeOptions, resizeExt4Image } from './image/grow.js';
import type { HashOptions } from './image/hash.js';
import { publishStack } from './publish/publish.js';
import {
  type PublishedStack,
  type PublishOptions,
  parsePublishOptions,
  type RemoveStackOptions,
} from './publish/publish-options.js';
import { removeStack } from './publish/remove-stack.js';
import { SealedImages } from './sealed/sealed-images.js';
import { type ExportedImage, exportSlot } from './slot/export.js';
import { forkSlot } from './slot/fork.js';
import type { DerivedRootfs } from './slot/new-slot.js';
import { type ReleaseOptions, releaseSlot } from './slot/release.js';
import { type DigestNow, type SlotDetails, slotDetails } from './slot/slot-details.js';
import { withSlotImage } from './slot/slot-image.js';
import type { SlotInfo } from './slot/slot-info.js';
import { listSlots } from './slot/slot-list.js';
import { type ForkOptions, parseCopyOptions } from './slot/slot-options.js';
import { type SlotUse, slotInUse } from './slot/slot-use.js';
import { parseVmId } from './slot/vm-id.js';
import { type NewSnapshot, type RestoredRootfs, type Snapshot, Snapshots } from './snapshots/snapshots.js';
import {
  optionalBoolean,
  optionalFunction,
  optionalSignal,
  requireKnownKeys,
  requirePath,
  requireSizeBytes,
  show,
} from './system/arguments.js';
import { Background } from './system/background.js';
import { completeConfig, configFromEnv, type RootfsConfig } from './system/config.js';
import { asRootfsError, RootfsError } from './system/errors.js';
import { traced, tracedMany, tracedSync } from './system/events.js';
import { collectGarbage, type GcReport } from './upkeep/gc.js';
import { type RecoverReport, recover } from './upkeep/recover.js';
import { type UsageReport, usage } from './upkeep/usage.js';
import { type VerifyOptions, type VerifyReport, verify } from './upkeep/verify.js';

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

export interface CommitOptions extends Pick<PublishOptions, 'replace' | 'signal' | 'onProgress'> {}

export interface SnapshotOptions extends HashOptions {
  /** Paths of further files: they are kept under their base names. */
  readonly with?: readonly string[];
  /** Reject with `SLOT_IN_USE` if some process has the image open, rather than trust that the VM is paused. */
  readonly refuseInUse?: boolean;
}

export interface RestoreOptions extends Omit<ForkOptions, 'refuseInUse'>, Pick<HashOptions, 'onProgress'> {}

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
  readonly #folder: ManagedFolder;
  /** Staging of the catalog itself. */
  readonly #catalogFolder: ManagedFolder;
  readonly #templates: Templates;
  readonly #catalog: Catalog;
  readonly #names: StackNames;
  readonly #snapshots: Snapshots;
  readonly #sealed: SealedImages;
  readonly #pool: Pool;
  readonly #slots: Slots;

  /** Does no I/O. Throws `INVALID_ARGUMENT`. */
  constructor(config: Partial<RootfsConfig> = {}) {
    this.config = completeConfig(config);
    const { templateDir, clonesDir, sealing } = this.config;
    this.#folder = new ManagedFolder(clonesDir);
    this.#catalogFolder = new ManagedFolder(templateDir, 'catalog');
    this.#templates = new Templates(new DigestCache(this.#folder), (before, gone) =>
      this.#dropMadeOf(before, gone),
    );
    this.#catalog = new Catalog(templateDir, this.#templates);
    this.#names = new StackNames(this.#folder);
    const snapshotsDir = this.config.snapshotsDir ?? `${this.#folder.statePath}/snapshots`;
    this.#snapshots = new Snapshots(snapshotsDir, this.#folder, this.#names);
    this.#sealed = new SealedImages(this.#folder, this.config);
    this.#pool = new Pool(this.#folder, this.#background);
    const sealed = sealing === 'auto' ? this.#sealed : undefined;
    this.#slots = new Slots(this.#folder, this.#templates, this.#names, sealed, this.#pool, this.config);
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
   * Puts an image into the catalog as stack `name`, at once and whole: whoever looks, also after a crash or power cut, finds the stack as it was
   * or as it is published. `source` is a raw image of an ext4 filesystem (reflinked where that can be, else copied; holes stay holes), one
   * compressed by gzip, zstd or xz, a qcow2, or a root filesystem as a folder or a tar (which may be compressed, too). It is only read. The same
   * tree (names, contents, modes, owners, times of last modification, extended attributes, hardlinks) gives the same digest with the same
   * version of `mke2fs`; the root folder itself is root's, with mode 0755 unless `mke2fs` takes that of the tree.
   *
   * Only an image that `e2fsck` finds clean is published. A journal is replayed, in the published image, first. Clones of an image that is
   * replaced stay as they are, and have a stamp that is not the stack's any more.
   *
   * Runs `e2fsck`; for folders and tars `mke2fs`, for tars GNU `tar` (as root: owners are kept), for xz `xz`, for zstd `zstd`, for
   * qcow2 `qemu-img`.
   *
   * Rejects with `INVALID_STACK_NAME`, `STACK_EXISTS` (without `replace`), `DIGEST_MISMATCH` (not what `expectedSha256` says), `IMAGE_INVALID` (no ext4
   * filesystem, damaged or cut-off data, a qcow2 with other files behind it), `TEMPLATE_CORRUPT` (the filesystem is longer than its image),
   * `E2FSCK_FAILED` (not clean), `MKE2FS_FAILED`, `SOURCE_CHANGED` (somebody writes to the source), `TEMPLATE_INVALID` (the stack's folder is no
   * folder), `MKE2FS_NOT_FOUND`, `E2FSCK_NOT_FOUND`, `PROGRAM_NOT_FOUND`. After any of them the catalog is as it was.
   *
   * @example
   * await registry.publishStack('debian-12', '/srv/build/debian-12.tar.zst', { replace: true });
   */
  async publishStack(name: string, source: string, options: PublishOptions = {}): Promise<PublishedStack> {
    const located = this.#catalog.located(name);
    requirePath('source', source);
    const parsed = parsePublishOptions(`publishing ${located.name}`, options);
    const request = { ...located, source, options: parsed };
    return traced({ operation: 'publish', stack: name, path: source }, () =>
      publishStack(this.#catalogFolder, this.#templates, this.config, request),
    );
  }

  /**
   * {@link publishStack} of a VM's disk as it is now: the slot becomes a template, and stays a slot. Its filesystem is checked, and a journal
   * replayed, on a copy. The VM must be stopped: a disk in use is never whole.
   *
   * Rejects like {@link publishStack}, and with `SLOT_IN_USE`, `SLOT_NOT_FOUND`, `SLOT_INVALID`, `SLOT_TORN`, `VM_ID_COLLISION`, `SLOT_BUSY`.
   */
  async commitSlot(vmId: string, name: string, options: CommitOptions = {}): Promise<PublishedStack> {
    const vm = parseVmId(vmId);
    const located = this.#catalog.located(name);
    requireKnownKeys('options', options, ['replace', 'signal', 'onProgress']);
    const parsed = parsePublishOptions(`publishing ${located.name}`, { ...options, format: 'raw' });
    return traced({ operation: 'publish', stack: name, vmId: vm.safe }, () =>
      withSlotImage(this.#folder, vm, true, options.signal, ({ path }) =>
        publishStack(this.#catalogFolder, this.#templates, this.config, {
          ...located,
          source: path,
          options: parsed,
        }),
      ),
    );
  }

  /**
   * Takes a stack out of the catalog. Resolves to false if there is none. Clones are independent of it, but the next `cloneForVm` of their ids would
   * fail: so it refuses while there are clones of what it is now. A clone that is made meanwhile may be missed. Other files in the stack's
   * folder stay, and then so does the folder.
   *
   * Rejects with `INVALID_STACK_NAME`, `STACK_IN_USE` (unless `force`), and like {@link stack} where the image's digest must be computed first.
   */
  async removeStack(name: string, options: RemoveStackOptions = {}): Promise<boolean> {
    const located = this.#catalog.located(name);
    requireKnownKeys('options', options, ['force', 'signal']);
    const force = optionalBoolean('force', options.force) ?? false;
    const signal = optionalSignal(`removing ${located.name}`, options.signal);
    return removeStack(this.#catalogFolder, this.#folder, this.#names, this.#templates, {
      ...located,
      force,
      signal,
    });
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
    const request = this.#request(vmId, stack, options);
    return traced(aboutClone(request), () => this.#slots.clone(request));
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
    const request = this.#request(vmId, stack, options);
    return tracedSync(aboutClone(request), () => this.#slots.cloneSync(request));
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
    const settled = await tracedMany(
      'clone',
      () => parsed.map(({ request }) => aboutClone(request)),
      () => this.#slots.cloneMany(parsed.map(({ request }) => request)),
    );
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
      throw asRootfsError(`making ready slots of ${request.templatePath}`, error);
    }
  }

  /** The ready slots that lie in the pool, whichever process made them, sorted by stack and size. */
  async readySlots(): Promise<ReadySlots[]> {
    return readySlots(this.#folder);
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
    return traced({ operation: 'release', vmId: vm.safe }, () => releaseSlot(this.#folder, vm, options));
  }

  /**
   * Puts the clones folder in order after crashes and power cuts: removes what dead processes left, half-made stacks and snapshots too, and slots that are not whole unless
   * some process has their image open. Safe at any time, beside other processes, and any number of times. A slot that cannot be looked at
   * (`EIO`, `EACCES`) keeps nothing else from being done: the call rejects with the first such error when all else is in order.
   */
  async recover(options: Abortable = {}): Promise<RecoverReport> {
    return recover(
      this.#folder,
      [this.#catalogFolder, this.#snapshots.folder],
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

  /**
   * Every slot in the clones folder, whole or not, in no order; foreign files and folders are left out. Comes in batches, so that a hundred
   * thousand of them need no memory; what is made or released meanwhile may be among them or not.
   *
   * @example for await (const { rawId, stack, sizeBytes } of registry.slots()) console.log(rawId, stack, sizeBytes);
   */
  async *slots(options: Abortable = {}): AsyncGenerator<SlotInfo, void, undefined> {
    const signal = signalOf(`listing slots in ${this.config.clonesDir}`, options);
    yield* listSlots(this.#folder, this.#names, signal);
  }

  /**
   * All that can be told of a VM's slot; undefined if it has none. A template that was never looked at is hashed neither: then `outdated` is
   * undefined.
   *
   * Rejects with `INVALID_VM_ID`, `VM_ID_COLLISION`, `SLOT_TORN` (its raw id is).
   */
  async slot(vmId: string): Promise<SlotDetails | undefined> {
    const digestNow: DigestNow = (stack) => this.#catalog.digestNow(stack);
    return slotDetails(this.#folder, this.#names, digestNow, parseVmId(vmId));
  }

  /**
   * What stacks and slots hold on disk, by FIEMAP: blocks that several images share are counted once. Looks at each image: some 10 µs, and more for
   * images of many extents.
   */
  async usage(options: Abortable = {}): Promise<UsageReport> {
    const signal = signalOf(`measuring ${this.config.clonesDir}`, options);
    return usage(this.#folder, this.#names, await this.#catalog.templates(signal), signal);
  }

  /**
   * A new slot from the present contents of another VM's, for a VM that is forked from a paused one. The image may be open in the paused
   * VMM: what it has written is in the fork, what it or its guest still hold in memory is not, so flush first, or fork the memory as well. The new
   * slot has its parent's stamps: those of the template that both descend from.
   *
   * Rejects with `INVALID_VM_ID`, `SLOT_NOT_FOUND`, `SLOT_INVALID`, `SLOT_TORN`, `VM_ID_COLLISION`, `SLOT_EXISTS` (the new one), `SOURCE_CHANGED` (the parent was
   * written to meanwhile), `SLOT_IN_USE` (only with `refuseInUse`), `SLOT_BUSY`.
   */
  async forkSlot(fromVmId: string, vmId: string, options: ForkOptions = {}): Promise<DerivedRootfs> {
    const from = parseVmId(fromVmId);
    const vm = parseVmId(vmId);
    const copy = parseCopyOptions(`forking ${from.safe} to ${vm.safe}`, options, 'refuseInUse');
    const refuseInUse = optionalBoolean('refuseInUse', options.refuseInUse) ?? false;
    return traced({ operation: 'fork', vmId: vm.safe }, () =>
      forkSlot(this.#folder, this.#names, from, vm, refuseInUse, copy),
    );
  }

  /**
   * Gives a slot's image a path in another folder, such as a jailer's chroot: as a hardlink, so that what the VM writes is in the slot; else as a
   * reflink or a copy with a life of its own, where the folder is on another filesystem or the clone is its template. `strategy` and
   * `attempts` tell which. Grow the slot before, not after. `owner` and `mode` of a hardlink are those of the slot's image as well.
   *
   * Rejects with `FILE_EXISTS`, `SOURCE_CHANGED`, and those of {@link forkSlot} that are of the parent.
   */
  async exportTo(
    vmId: string,
    path: string,
    options: Omit<ForkOptions, 'refuseInUse'> = {},
  ): Promise<ExportedImage> {
    const vm = parseVmId(vmId);
    requirePath('path', path);
    const copy = parseCopyOptions(`exporting ${vm.safe} to ${path}`, options);
    return traced({ operation: 'export', vmId: vm.safe, path }, () =>
      exportSlot(this.#folder, vm, path, copy),
    );
  }

  /**
   * Keeps a VM's disk as it is now, and with it the files that belong to the same moment (`with`: the memory and state that the VMM wrote),
   * in a folder of their own under `snapshotsDir`, with a manifest that `sha256sum -c` reads. On the disk when this resolves. The VM must be
   * paused meanwhile; copying is by reflink where that is possible, and hashing, which takes longer, is of the copies.
   *
   * Rejects with `INVALID_SNAPSHOT_NAME`, `SNAPSHOT_EXISTS`, `SOURCE_CHANGED`, and those of {@link forkSlot} that are of the parent.
   */
  async snapshotSlot(vmId: string, name: string, options: SnapshotOptions = {}): Promise<NewSnapshot> {
    const vm = parseVmId(vmId);
    requireKnownKeys('options', options, ['with', 'refuseInUse', 'signal', 'onProgress']);
    const { with: others = [], onProgress } = options;
    if (!Array.isArray(others))
      throw new RootfsError('INVALID_ARGUMENT', `with must be an array of paths, got ${show(others)}`);
    for (const [i, path] of others.entries()) requirePath(`with[${i}]`, path);
    const refuseInUse = optionalBoolean('refuseInUse', options.refuseInUse) ?? false;
    optionalFunction('onProgress', onProgress);
    const signal = optionalSignal(`making snapshot ${name}`, options.signal);
    return traced({ operation: 'snapshot', vmId: vm.safe }, () =>
      this.#snapshots.take(vm, name, others, refuseInUse, { signal, onProgress }),
    );
  }

  /** The snapshots that are whole, in no order. Reads their manifests alone. */
  async *snapshots(): AsyncGenerator<Snapshot, void, undefined> {
    yield* this.#snapshots.list();
  }

  /**
   * Reads all files of a snapshot again. Rejects with `SNAPSHOT_CORRUPT`, which names the first file that is not as it was, `SNAPSHOT_NOT_FOUND`,
   * `INVALID_SNAPSHOT_NAME`.
   */
  async verifySnapshot(name: string, options: HashOptions = {}): Promise<Snapshot> {
    requireKnownKeys('options', options, ['signal', 'onProgress']);
    optionalFunction('onProgress', options.onProgress);
    const signal = optionalSignal(`verifying snapshot ${name}`, options.signal);
    return this.#snapshots.verify(name, { signal, onProgress: options.onProgress });
  }

  /**
   * A new slot from a snapshot, which is verified first. Rejects like {@link verifySnapshot}, and with `SLOT_EXISTS`, `INVALID_VM_ID`.
   */
  async restoreSnapshot(name: string, vmId: string, options: RestoreOptions = {}): Promise<RestoredRootfs> {
    const vm = parseVmId(vmId);
    const copy = parseCopyOptions(`restoring snapshot ${name} to ${vm.safe}`, options, 'onProgress');
    optionalFunction('onProgress', options.onProgress);
    return traced({ operation: 'restore', vmId: vm.safe }, () =>
      this.#snapshots.restore(name, vm, copy, options.onProgress),
    );
  }

  /** Removes a snapshot; false if there was none. Rejects with `SNAPSHOT_CORRUPT` if the folder is none of ours. */
  async removeSnapshot(name: string): Promise<boolean> {
    return this.#snapshots.remove(name);
  }

  /** Resolves when background work is done: the space of released slots was given back, the pool is full. */
  async drain(): Promise<void> {
    await this.#background.drain();
    await this.#catalogFolder.drain();
    await this.#folder.drain();
    await this.#snapshots.drain();
  }

  /** Ends background work and closes all descriptors. The registry is of no use afterwards (`CLOSED`). */
  async close(): Promise<void> {
    this.#pool.close();
    await this.#background.close();
    await this.#snapshots.close();
    await this.#catalogFolder.close();
    await this.#folder.close();
    this.#sealed.close();
    this.#templates.close();
  }
}

function aboutClone({ vm, stack }: CloneRequest) {
  return { operation: 'clone', vmId: vm.safe, stack } as const;
}

function signalOf(what: string, options: Abortable): AbortSignal | undefined {
  requireKnownKeys('options', options, ['signal']);
  return optionalSignal(what, options.signal);
}
