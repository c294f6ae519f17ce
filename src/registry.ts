import { Catalog, type StackInfo, stackNotFoundError } from './catalog/catalog.js';
import { DigestStore } from './catalog/digest-store.js';
import { parseStackName } from './catalog/stack-name.js';
import { StacksByDigest } from './catalog/stacks-by-digest.js';
import { isOutdated, type Template } from './catalog/template.js';
import { Templates } from './catalog/templates.js';
import { CLONE_OPTION_KEYS, type CloneOptions, parseCloneOptions } from './clone/clone-options.js';
import { type CloneRequest, poolKey } from './clone/clone-plan.js';
import { Cloner } from './clone/cloner.js';
import { Pool } from './clone/pool.js';
import type { MakeReady } from './clone/pooled-kind.js';
import { type ReadySlots, readySlots } from './clone/ready-slots.js';
import type { VmRootfs } from './clone/vm-rootfs.js';
import { ManagedFolder } from './folder/managed-folder.js';
import { type ResizeOptions, resizeExt4Image } from './image/grow.js';
import type { HashOptions } from './image/hash.js';
import type { CommitRequest } from './publish/commit-slot.js';
import type { RegistryCheck } from './publish/fetch-image.js';
import type { PublishRequest } from './publish/publish.js';
import {
  type PublishedStack,
  type PublishOptions,
  parsePublishOptions,
  type RemoveStackOptions,
} from './publish/publish-options.js';
import { absoluteSource, requireNoUserInfo } from './publish/source-name.js';
import { KnownChunks } from './remote/known-chunks.js';
import { KnownDiskLayers } from './remote/known-disk-layers.js';
import { PullFolder } from './remote/pull-folder.js';
import {
  type PulledSnapshot,
  type PullSnapshotOptions,
  type PushedSnapshot,
  parsePullSnapshotOptions,
} from './remote/snapshot-options.js';
import {
  type InspectOptions,
  type PulledStack,
  type PullOptions,
  type PushedStack,
  type PushOptions,
  parseInspectOptions,
  parsePullOptions,
  parsePushOptions,
  type RemoteArtifact,
} from './remote/transfer-options.js';
import type { SealedImageInfo } from './sealed/sealed-folder.js';
import { SealedImages } from './sealed/sealed-images.js';
import { type ExportedImage, exportSlot } from './slot/export.js';
import { forkSlot } from './slot/fork.js';
import type { DerivedRootfs } from './slot/new-slot.js';
import { type ReleaseOptions, releaseSlot } from './slot/release.js';
import { Sharers } from './slot/shared-image.js';
import { type DigestNow, type SlotDetails, slotDetails } from './slot/slot-details.js';
import type { TemplateBytes } from './slot/slot-image.js';
import type { SlotInfo } from './slot/slot-info.js';
import { listSlots } from './slot/slot-list.js';
import { COPY_OPTION_KEYS, type ForkOptions, parseCopyOptions } from './slot/slot-options.js';
import { type SlotUse, slotInUse } from './slot/slot-use.js';
import { parseVmId, rawIds } from './slot/vm-id.js';
import { ReadySnapshots } from './snapshots/ready-snapshots.js';
import { type RestoredRootfs, SnapshotRestorer } from './snapshots/snapshot-restorer.js';
import { type NewSnapshot, type Snapshot, Snapshots } from './snapshots/snapshots.js';
import { VerifiedSnapshots } from './snapshots/verified-snapshots.js';
import {
  absolutePath,
  optionalBoolean,
  optionalFunction,
  optionalSignal,
  readOptions,
  requireCount,
  requireSizeBytes,
  show,
} from './system/arguments.js';
import { Background } from './system/background.js';
import { Backlog } from './system/backlog.js';
import { completeConfig, configFromEnv, type RootfsConfig } from './system/config.js';
import { asRootfsError, closedError, hasCode, RootfsError } from './system/errors.js';
import { traced, tracedMany, tracedSync } from './system/events.js';
import { Failures } from './system/failures.js';
import { refuseOverlapOnDisk } from './system/folders-overlap.js';
import { settleInLanes, settleMany } from './system/settle-many.js';
import { DEFAULT_SNAPSHOTS_FOLDER } from './system/state-folder.js';
import { Task } from './system/task.js';
import { UntilClosed } from './system/until-closed.js';
import type { GcReport } from './upkeep/gc.js';
import type { RecoverReport } from './upkeep/recover.js';
import type { UsageReport } from './upkeep/usage.js';
import type { VerifyOptions, VerifyReport } from './upkeep/verify.js';

// The folders publish, remote and upkeep are loaded when they are first used. With them, the first clone of a process
// would take twice as long. What parses their options is loaded at once: options are read before the first `await`.

// Enough to keep all threads at work. All begun at once would hold the event loop.
const RESTORES_AT_ONCE = 64;

// Each is lost to a process that replaces the template at the same moment.
const PREWARM_ROUNDS = 8;

export interface Abortable {
  readonly signal?: AbortSignal;
}

export interface CloneManyRequest {
  readonly vmId: string;
  readonly stack: string;
  readonly options?: CloneOptions;
}

export interface GcOptions extends Abortable {
  /** Ids whose slots stay, as given to `cloneForVm`. */
  readonly keep: Iterable<string>;
  /** Report what would be released, and release nothing. */
  readonly dryRun?: boolean;
}

export interface CommitOptions extends Pick<PublishOptions, 'replace' | 'signal' | 'onProgress'> {}

export interface SnapshotOptions extends HashOptions {
  /** Paths of further files to save, under their base names. */
  readonly with?: readonly string[];
  /** Reject with `SLOT_IN_USE` if a process has the image open, instead of trusting that the VM is paused. */
  readonly refuseInUse?: boolean;
}

export interface RestoreOptions extends Omit<ForkOptions, 'refuseInUse'>, Pick<HashOptions, 'onProgress'> {}

export interface RestoreManyRequest {
  /** The snapshot's name. */
  readonly snapshot: string;
  readonly vmId: string;
  readonly options?: RestoreOptions;
}

export interface PrewarmSnapshotOptions extends Pick<RestoreOptions, 'owner' | 'mode' | 'signal'> {
  /** How many ready slots to keep. Without it, the pool stays as it is. */
  readonly count?: number;
}

export interface PrewarmOptions extends Omit<CloneOptions, 'durable'> {
  /** How many ready slots to keep. Without it, the pool stays as it is. */
  readonly count?: number;
  /**
   * Rewrite the sealed image in few extents now: worth it if thousands of clones will come. It takes the
   * space of the data once more.
   */
  readonly pack?: boolean;
}

/**
 * A catalog of rootfs templates, and the clones made from them, one per VM.
 *
 * Any number of `RootfsRegistry` objects, in any number of processes, can work on the same folders. Every method
 * rejects with a {@link RootfsError}. Besides the codes that a method names, these are possible everywhere:
 * `INVALID_ARGUMENT` (an option of a wrong type), `ABORT_ERR` (where a signal is taken), `UNSUPPORTED_PLATFORM`,
 * `ADDON_NOT_LOADED`, `CLOSED`, and the system's own codes (`ENOSPC`, `EIO`, `EACCES`, …).
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
  readonly #reads = new UntilClosed();
  /** Of {@link cloneMany} and {@link restoreMany}. */
  readonly #manyCalls = new Set<Promise<unknown>>();
  readonly #folder: ManagedFolder;
  /** Staging of the catalog itself. */
  readonly #catalogFolder: ManagedFolder;
  readonly #pulls: PullFolder;
  readonly #snapshotPulls: PullFolder;
  readonly #chunks: KnownChunks;
  readonly #disks: KnownDiskLayers;
  #isClosed = false;
  readonly #digests: DigestStore;
  readonly #templates: Templates;
  readonly #catalog: Catalog;
  readonly #stacks: StacksByDigest;
  readonly #snapshots: Snapshots;
  readonly #restorer: SnapshotRestorer;
  readonly #sealed: SealedImages;
  readonly #pool: Pool;
  readonly #sharers: Sharers;
  readonly #cloner: Cloner;
  /** Of templates that have changed or are gone: their sealed images are removed. */
  readonly #changedDigests: Backlog<string>;
  readonly #templateBytes: TemplateBytes = async (sha256, stack) =>
    this.#templates.sizeOf(sha256) ??
    (await this.#catalog.knownBytes(sha256, stack ?? (await this.#stacks.firstWith(sha256))));

  /**
   * Does no I/O. Relative paths start at the current working directory. Throws `INVALID_ARGUMENT`, and
   * `FOLDERS_OVERLAP` if one folder lies in another. An overlap through links or mounts is refused when a folder is
   * first opened.
   */
  constructor(config: Partial<RootfsConfig> = {}) {
    this.config = completeConfig(config);
    const { templateDir, clonesDir, sealing } = this.config;
    const apart = () => refuseOverlapOnDisk(this.config);
    this.#folder = new ManagedFolder(clonesDir, 'clones folder', apart);
    this.#catalogFolder = new ManagedFolder(templateDir, 'catalog', apart);
    this.#pulls = new PullFolder(this.#catalogFolder.statePath);
    this.#chunks = new KnownChunks(this.#catalogFolder);
    this.#disks = new KnownDiskLayers(this.#catalogFolder);
    this.#digests = new DigestStore(this.#folder);
    this.#templates = new Templates(this.#digests, this.#reads, (before, gone) =>
      this.#dropMadeOf(before, gone),
    );
    this.#catalog = new Catalog(templateDir, this.#templates);
    this.#stacks = new StacksByDigest(this.#folder);
    const snapshotsDir = this.config.snapshotsDir ?? `${this.#folder.statePath}/${DEFAULT_SNAPSHOTS_FOLDER}`;
    this.#pool = new Pool(this.#folder, this.#background);
    const snapshotsFolder = new ManagedFolder(snapshotsDir, 'folder of snapshots', apart);
    const snapshotParts = {
      folder: snapshotsFolder,
      clones: this.#folder,
      stacks: this.#stacks,
      templateBytes: this.#templateBytes,
      verified: new VerifiedSnapshots(this.#digests, this.#reads),
      ready: new ReadySnapshots(this.#folder, this.#pool),
      reads: this.#reads,
    };
    this.#snapshots = new Snapshots(snapshotParts);
    this.#restorer = new SnapshotRestorer({ ...snapshotParts, snapshots: this.#snapshots });
    this.#snapshotPulls = new PullFolder(snapshotsFolder.statePath);
    const { sealedImages: images, sealedBytes: bytes } = this.config;
    this.#sealed = new SealedImages(this.#folder, this.config, { images, bytes }, this.#background);
    const removing = `removing the sealed images of changed templates in ${this.#sealed.images.path}`;
    this.#changedDigests = new Backlog(this.#background, removing, async (digests) => {
      const failures = new Failures(new Task(removing, undefined));
      await this.#sealed.images.collect(this.#templates, failures, digests);
      failures.throwIfAny();
    });
    const sealed = sealing === 'auto' ? this.#sealed : undefined;
    this.#sharers = new Sharers(this.config);
    this.#cloner = new Cloner({
      folder: this.#folder,
      templates: this.#templates,
      stacks: this.#stacks,
      sealed,
      pool: this.#pool,
      sharers: this.#sharers,
      programs: this.config,
    });
  }

  /** A registry configured by the environment: see {@link configFromEnv}. */
  static fromEnv(env: Readonly<Record<string, string | undefined>> = process.env): RootfsRegistry {
    return new RootfsRegistry(configFromEnv(env));
  }

  /**
   * Lists every folder of `templateDir` that holds a regular `rootfs.ext4`, sorted by the UTF-8 bytes of its name.
   * Returns an empty list if `templateDir` does not exist. Each digest is computed once per state of its file; a new
   * template is read in full for that. A stack that cannot be read, or is being written to, is left out with a
   * warning; `stack()` rejects.
   */
  async stacks(options: Abortable = {}): Promise<StackInfo[]> {
    this.#requireOpen();
    return this.#catalog.stacks(signalOf('listing stacks', options));
  }

  /**
   * Returns one template of the catalog, or undefined if its folder or image is missing. Rejects with
   * `INVALID_STACK_NAME`, `TEMPLATE_INVALID` (not a regular file) and `TEMPLATE_CHANGED` (being written to).
   */
  async stack(name: string, options: Abortable = {}): Promise<StackInfo | undefined> {
    this.#requireOpen();
    return this.#catalog.stack(parseStackName(name), signalOf(`looking at stack ${name}`, options));
  }

  /**
   * Puts an image into the catalog as stack `name`. The change is atomic: every reader, even after a crash or a power
   * cut, finds the stack either as it was or as it is now. `source` is only read. It can be a raw ext4 image (reflinked
   * where possible, else copied with its holes), one compressed with gzip, zstd or xz, a qcow2 image, or a root file
   * system as a folder or a tar archive, compressed or not. `-` is standard input. The same tree (names, contents,
   * modes, owners, modification times, extended attributes, hardlinks) gives the same digest on every host with the
   * same version of `mke2fs`. Attributes that tell of the host do not count, such as its security labels. The root
   * folder itself belongs to root and has mode 0755.
   *
   * `docker://HOST/NAME:TAG`, `oci:DIR` and `oci:DIR:TAG` are container images. Their layers are applied, the same
   * image gives the same digest on every host, and {@link stack} says how to start the image (`image`). A file
   * with such a name is given as `./oci:…`. Logins are those of docker, podman or skopeo, and `config.registries`
   * counts, its `mirrors` too. A name without a host is one of `docker.io`; beside a digest a tag does not count.
   *
   * Only an image that `e2fsck` finds clean is published. A journal is replayed first, in the copy that is published.
   * Clones of an image that is replaced stay as they are; their stamps then no longer match the stack.
   *
   * Everybody may read the template, whatever the umask and the mode of the source. But an image in the folder of
   * clones, of snapshots or of templates that others may not read is private: so is the template then (mode 0400),
   * also if the image is standard input, but not through a pipe.
   *
   * Runs `e2fsck`; `mke2fs` for folders and tars; `xz`, `zstd` and `qemu-img` for those formats; `skopeo` and `umoci`
   * for container images (as root).
   *
   * Rejects with `INVALID_STACK_NAME`, `STACK_EXISTS` (without `replace`), `DIGEST_MISMATCH` (not `expectedSha256`),
   * `IMAGE_INVALID` (no ext4 file system or one with `mmp`, damaged or truncated data, a qcow2 that needs other files
   * or is marked as corrupt, a tree with something that ext4 cannot hold), `SOURCE_TOO_LARGE` (more than `limits`),
   * `TEMPLATE_CORRUPT` (the file system is longer than its image), `E2FSCK_FAILED` (not clean, or killed),
   * `MKE2FS_FAILED`, `SOURCE_CHANGED` (the source is being written to), `TEMPLATE_INVALID` (the stack's folder is not
   * a folder), `MKE2FS_NOT_FOUND`, `E2FSCK_NOT_FOUND`, `PROGRAM_NOT_FOUND`, `PROGRAM_FAILED` (another program was
   * killed); for container images `REFERENCE_INVALID`, `REGISTRY_NOT_FOUND`, `REGISTRY_UNAUTHORIZED`, `REGISTRY_BUSY`,
   * `REGISTRY_FAILED`, `ARTIFACT_INVALID` (damaged, no container image, or of another platform). After any of these
   * the catalog is unchanged.
   *
   * @example
   * await registry.publishStack('debian-12', '/srv/build/debian-12.tar.zst', { replace: true });
   */
  async publishStack(name: string, source: string, options: PublishOptions = {}): Promise<PublishedStack> {
    this.#requireOpen();
    const located = this.#catalog.located(name);
    const parsed = parsePublishOptions(`publishing ${located.name}`, options);
    requireNoUserInfo(source);
    const request = {
      ...located,
      source: absoluteSource(source),
      given: source,
      options: parsed,
    };
    return traced({ operation: 'publish', stack: name, path: source }, () => this.#publish(request));
  }

  /** Where there are clones, the stack's name is recorded now, with a flush that its first clone need not wait for. */
  async #publish(request: PublishRequest): Promise<PublishedStack> {
    const { publishStack } = await import('./publish/publish.js');
    const check: RegistryCheck = async (...asked) =>
      (await import('./remote/check-registry.js')).checkRegistry(this.config.registries, ...asked);
    const checked = { ...request, checkRegistry: check, ours: this.config };
    const published = await publishStack(this.#catalogFolder, this.#templates, this.config, checked);
    if (this.#folder.opened !== undefined) await this.#stacks.record(published.sha256, request.name);
    return published;
  }

  /**
   * Publishes a VM's disk, as it is now, as a stack: see {@link publishStack}. The slot stays. The file system is
   * checked, and its journal replayed, on a copy. Stop the VM first: a disk in use is never consistent. The template is
   * readable by everybody only if the slot's image is. `image` is that of the stack that the slot was cloned from, if
   * that stack is unchanged.
   *
   * Rejects like {@link publishStack}, and with `SLOT_IN_USE`, `SLOT_NOT_FOUND`, `SLOT_INVALID`, `SLOT_TORN`,
   * `VM_ID_COLLISION`, `SLOT_BUSY`.
   */
  async commitSlot(vmId: string, name: string, options: CommitOptions = {}): Promise<PublishedStack> {
    this.#requireOpen();
    const vm = parseVmId(vmId);
    const located = this.#catalog.located(name);
    const given = readOptions('options', options, ['replace', 'signal', 'onProgress']);
    const parsed = parsePublishOptions(`publishing ${located.name}`, { ...given, format: 'raw' });
    const { commitSlot } = await import('./publish/commit-slot.js');
    const slotImage = { refuseInUse: true, templateBytes: this.#templateBytes, signal: parsed.signal };
    const imageConfig: CommitRequest['imageConfig'] = async (sha256, stack) =>
      this.#catalog.imageConfig(sha256, stack ?? (await this.#stacks.firstWith(sha256)));
    const request = { ...located, options: parsed, vm, slots: this.#folder, slotImage, imageConfig };
    return traced({ operation: 'publish', stack: name, vmId: vm.safe }, () =>
      commitSlot(this.#catalogFolder, this.#templates, this.config, request),
    );
  }

  /**
   * Removes a stack from the catalog. Resolves to false if there is none; what a call that failed or was killed left of
   * it goes then. Existing clones keep working, but the next `cloneForVm` of their ids would fail, so the call refuses
   * while the stack's present image has clones. A clone that is made at the same time may be missed. If the stack's
   * folder holds other files, they and the folder stay.
   *
   * Rejects with `INVALID_STACK_NAME`, `STACK_IN_USE` (unless `force`), `TEMPLATE_INVALID` (its folder is a symbolic
   * link), like {@link stack} if the image's digest has to be computed first, and unless `force` like {@link slots}.
   */
  async removeStack(name: string, options: RemoveStackOptions = {}): Promise<boolean> {
    this.#requireOpen();
    const located = this.#catalog.located(name);
    const given = readOptions('options', options, ['force', 'signal']);
    const force = optionalBoolean('force', given.force) ?? false;
    const signal = optionalSignal(`removing ${located.name}`, given.signal);
    const { removeStack } = await import('./publish/remove-stack.js');
    return removeStack(this.#catalogFolder, this.#folder, this.#stacks, this.#templates, {
      ...located,
      force,
      signal,
    });
  }

  /**
   * Pushes a stack to an OCI registry as `HOST/NAME:TAG`. The image is cut into chunks by its content, and the registry
   * gets those packs of chunks that it lacks. The tag moves last. The same image gives the same manifest digest with
   * the same version of `zstd`, unless packs of a `base` are used. A template that others may not read says so in its
   * artifact, and is pulled with mode 0400.
   *
   * Any tool can restore the image: `cat` of the layers but the last, through `zstd -d`. See docs/fleet.md.
   *
   * Rejects with `INVALID_STACK_NAME`, `STACK_NOT_FOUND`, `REFERENCE_INVALID`, `REGISTRY_UNAUTHORIZED`,
   * `REGISTRY_FAILED`, `REGISTRY_BUSY`, `TEMPLATE_CHANGED`, `TEMPLATE_CORRUPT` (its bytes have changed on the disk),
   * `PROGRAM_NOT_FOUND`, `PROGRAM_FAILED`; for the base `REGISTRY_NOT_FOUND` and `ARTIFACT_INVALID`.
   *
   * @example
   * await registry.pushStack('debian-12', 'registry.example/templates/debian-12:2026-11');
   */
  async pushStack(name: string, reference: string, options: PushOptions = {}): Promise<PushedStack> {
    this.#requireOpen();
    const located = this.#catalog.located(name);
    const { task, ...parsed } = parsePushOptions(located.name, reference, options);
    const { pushStack } = await import('./remote/push-stack.js');
    const { registries } = this.config;
    return traced({ operation: 'push', stack: name }, async () => {
      const stack = await this.#catalog.stack(located.name, task.signal);
      if (stack === undefined) throw stackNotFoundError(located.name, located.templatePath);
      const context = { folder: this.#catalogFolder, known: this.#chunks, registries };
      return pushStack(task, context, { ...parsed, stack });
    });
  }

  /**
   * Pulls a stack that {@link pushStack} has pushed. Chunks that a template of this host has are copied, the others are
   * fetched. Every chunk and the whole image are compared with their digests, and `e2fsck` must find the file system
   * clean. The change is atomic, as with {@link publishStack}. A pull that was interrupted goes on where it ended.
   *
   * Artifacts of other tools are taken too if their only layer is a disk: raw, compressed by gzip, zstd or xz, or a
   * qcow2 (`oras push`, podman machine, KubeVirt). Such a layer is fetched whole.
   *
   * Rejects with `REFERENCE_INVALID`, `INVALID_STACK_NAME`, `STACK_EXISTS` (without `replace`), `REGISTRY_NOT_FOUND`,
   * `REGISTRY_UNAUTHORIZED`, `REGISTRY_FAILED`, `REGISTRY_BUSY`, `ARTIFACT_INVALID` (another kind, damaged, or none for
   * the platform), `DIGEST_MISMATCH` (wrong bytes, or not `expectedSha256`), `IMAGE_INVALID`, `TEMPLATE_CORRUPT`,
   * `SOURCE_TOO_LARGE` (more than `limits`), `E2FSCK_FAILED`, `E2FSCK_NOT_FOUND`, `PROGRAM_NOT_FOUND`,
   * `PROGRAM_FAILED`, `ENOSPC`. After any of these the catalog is unchanged.
   *
   * @example
   * await registry.pullStack('registry.example/templates/debian-12:2026-11', { replace: true });
   */
  async pullStack(reference: string, options: PullOptions = {}): Promise<PulledStack> {
    this.#requireOpen();
    const { task, name, ...parsed } = parsePullOptions(reference, options);
    const located = this.#catalog.located(name);
    const { pullStack } = await import('./remote/pull-stack.js');
    const context = {
      folder: this.#catalogFolder,
      pulls: this.#pulls,
      catalog: this.#catalog,
      templates: this.#templates,
      known: this.#chunks,
      disks: this.#disks,
      config: this.config,
    };
    return traced({ operation: 'pull', stack: located.name }, () =>
      pullStack(task, context, { ...parsed, located }),
    );
  }

  /**
   * Pushes a snapshot to an OCI registry as `HOST/NAME:TAG`, with all its files. Each is cut and packed like the image
   * of a stack: see {@link pushStack}. With the pushed stack of the VM as `base`, what the VM has not changed on its
   * disk is neither compressed nor sent. The files are verified first, like before a restore.
   *
   * Rejects with `INVALID_SNAPSHOT_NAME`, `SNAPSHOT_NOT_FOUND`, `SNAPSHOT_CORRUPT`, `REFERENCE_INVALID`,
   * `REGISTRY_UNAUTHORIZED`, `REGISTRY_FAILED`, `REGISTRY_BUSY`, `SOURCE_CHANGED`, `SOURCE_TOO_LARGE` (more than 256
   * files), `PROGRAM_NOT_FOUND`, `PROGRAM_FAILED`; for the base `REGISTRY_NOT_FOUND` and `ARTIFACT_INVALID`.
   *
   * @example
   * await registry.pushSnapshot('before-move', 'registry.example/moves/vm-1:7', {
   *   base: 'registry.example/templates/debian-12:2026-11',
   * });
   */
  async pushSnapshot(name: string, reference: string, options: PushOptions = {}): Promise<PushedSnapshot> {
    this.#requireOpen();
    const path = this.#snapshots.pathOf(name);
    const { task, ...parsed } = parsePushOptions(`snapshot ${name}`, reference, options);
    const { pushSnapshot } = await import('./remote/push-snapshot.js');
    const context = { snapshots: this.#snapshots, registries: this.config.registries };
    return traced({ operation: 'push', path }, () => pushSnapshot(task, context, { ...parsed, name }));
  }

  /**
   * Pulls a snapshot that {@link pushSnapshot} has pushed: the same files and manifest, for {@link restoreSnapshot}.
   * Chunks of the disk that a template of this host has are copied, first those of the template that the disk descends
   * from; it need not be here. The rest is fetched. Every chunk and every whole file are compared with their digests.
   * The snapshot appears by one rename, when all of it is on disk. A pull that was interrupted goes on where it ended.
   *
   * Rejects with `REFERENCE_INVALID`, `INVALID_SNAPSHOT_NAME`, `SNAPSHOT_EXISTS` (another one has the name),
   * `SNAPSHOT_NAME_COLLISION`, `REGISTRY_NOT_FOUND`, `REGISTRY_UNAUTHORIZED`, `REGISTRY_FAILED`, `REGISTRY_BUSY`,
   * `ARTIFACT_INVALID` (another kind, or damaged), `DIGEST_MISMATCH` (wrong bytes, or not `expectedSha256`),
   * `PROGRAM_NOT_FOUND`, `PROGRAM_FAILED`, `ENOSPC`. After any of these there is no new snapshot.
   *
   * @example
   * await registry.pullSnapshot('registry.example/moves/vm-1:7', { name: 'moved' });
   * await registry.restoreSnapshot('moved', 'vm-1');
   */
  async pullSnapshot(reference: string, options: PullSnapshotOptions = {}): Promise<PulledSnapshot> {
    this.#requireOpen();
    const { task, ...parsed } = parsePullSnapshotOptions(reference, options);
    const path = this.#snapshots.pathOf(parsed.name);
    const { pullSnapshot } = await import('./remote/pull-snapshot.js');
    const context = {
      snapshots: this.#snapshots,
      pulls: this.#snapshotPulls,
      catalog: this.#catalog,
      known: this.#chunks,
      registries: this.config.registries,
    };
    return traced({ operation: 'pull', path }, () => pullSnapshot(task, context, parsed));
  }

  /**
   * Tells what a reference names, and how much a pull of it would fetch. Only manifests and indexes are fetched.
   *
   * Rejects with `REFERENCE_INVALID`, `REGISTRY_NOT_FOUND`, `REGISTRY_UNAUTHORIZED`, `REGISTRY_FAILED`,
   * `REGISTRY_BUSY`, `ARTIFACT_INVALID`, `DIGEST_MISMATCH`.
   */
  async inspectReference(reference: string, options: InspectOptions = {}): Promise<RemoteArtifact> {
    this.#requireOpen();
    const { task, platform, ...parsed } = parseInspectOptions(reference, options);
    const { inspectReference } = await import('./remote/inspect-reference.js');
    const { registries } = this.config;
    const context = { catalog: this.#catalog, known: this.#chunks, registries };
    return inspectReference(task, context, parsed.reference, platform);
  }

  /**
   * Gives a VM its own clone of a template: by reflink, else by hardlink (unless `writable: true`), else by a copy that
   * keeps holes. The slot appears atomically and complete. A second call with the same id and stack returns the
   * existing slot, whatever its size.
   *
   * Rejects with `INVALID_VM_ID`, `INVALID_STACK_NAME`, `STACK_NOT_FOUND`, `TEMPLATE_INVALID`, `TEMPLATE_CHANGED`, and
   * with `SHARED_INODE` if `owner` or `mode` would change the template. If a slot exists and cannot be used, it is left
   * alone and the call rejects with `STAMP_MISMATCH` (of another template), `VM_ID_COLLISION` (of another id with the
   * same folder name), `SLOT_TORN` (incomplete), `SLOT_INVALID` (not a slot) or `SLOT_IN_USE` (it would have to be
   * replaced).
   */
  async cloneForVm(vmId: string, stack: string, options: CloneOptions = {}): Promise<VmRootfs> {
    this.#requireOpen();
    const request = this.#request(vmId, stack, options);
    return traced(aboutClone(request), () => this.#cloner.clone(request));
  }

  /**
   * {@link cloneForVm} on the calling thread. It saves the hop to another thread and back, and blocks the event loop
   * for the duration of the clone instead. It does only warm work: the template's digest must be known and the template
   * sealed, where that is possible, and nothing may need copying or growing.
   *
   * Throws like {@link cloneForVm}, and `NOT_WARM` if more work is needed. In that case call {@link cloneForVm}, or
   * call {@link prewarm} beforehand.
   */
  cloneForVmSync(vmId: string, stack: string, options: CloneOptions = {}): VmRootfs {
    this.#requireOpen();
    const request = this.#request(vmId, stack, options);
    return tracedSync(aboutClone(request), () => this.#cloner.sync.clone(request));
  }

  /**
   * Makes many clones, which share trips to other threads. Resolves to one settled result per request, in order. A
   * request that fails or is invalid does not affect the others. Thousands of requests are read in several turns of the
   * event loop: do not change them before it resolves.
   */
  async cloneMany(requests: readonly CloneManyRequest[]): Promise<PromiseSettledResult<VmRootfs>[]> {
    const parse = (name: string, request: CloneManyRequest) => {
      const { vmId, stack, options = {} } = readOptions(name, request, ['vmId', 'stack', 'options']);
      return this.#request(vmId, stack, options);
    };
    return this.#many(requests, parse, (parsed) =>
      tracedMany(
        'clone',
        () => parsed.map(aboutClone),
        () => this.#cloner.batches.clone(parsed),
      ),
    );
  }

  /** A call that {@link close} waits for, and refuses afterwards, as a whole. */
  async #many<T, P, R>(
    requests: readonly T[],
    parse: (name: string, request: T) => P,
    work: (parsed: readonly P[]) => Promise<PromiseSettledResult<R>[]>,
  ): Promise<PromiseSettledResult<R>[]> {
    if (!Array.isArray(requests))
      throw new RootfsError('INVALID_ARGUMENT', `requests must be an array, got ${show(requests)}`);
    const isClosed = this.#isClosed;
    const parseOpen = (request: T, index: number) => {
      if (isClosed) throw closedError();
      return parse(`requests[${index}]`, request);
    };
    const call = settleMany(requests, parseOpen, work).finally(() => this.#manyCalls.delete(call));
    this.#manyCalls.add(call);
    return call;
  }

  /**
   * Keeps `count` ready slots of a stack from now on, so that a clone with the same size, owner and mode is only a
   * rename (`pooled: true`). The pool is refilled in the background when half of it is gone. Without `count` the
   * template is only hashed and sealed. With `count: 0` such ready slots are discarded, of all processes. Resolves
   * when the slots are ready. Where clones are copies, each ready slot takes the space of a copy.
   *
   * Rejects like {@link cloneForVmWithSize}.
   */
  async prewarm(stack: string, options: PrewarmOptions = {}): Promise<void> {
    this.#requireOpen();
    await this.#prewarm(stack, options, () => true);
  }

  async #prewarm(stack: string, options: PrewarmOptions, isWanted: () => boolean): Promise<void> {
    const given = readOptions('options', options, [
      'count',
      'sizeBytes',
      'writable',
      'owner',
      'mode',
      'pack',
      'signal',
    ]);
    const { count, pack, ...cloneOptions } = given;
    if (count !== undefined) requireCount('count', count);
    optionalBoolean('pack', pack);
    // Ready slots are always independent of the template, so they serve every guest.
    const request = this.#request('ready', stack, { ...cloneOptions, writable: true });
    const { signal, ...lasting } = given;
    const make: MakeReady = (key, prefix, each) =>
      this.#cloner.makeReady({ ...request, signal: each }, key, prefix);
    const { sizeBytes, owner, mode } = request;
    const id = JSON.stringify([sizeBytes, owner?.uid, owner?.gid, mode]);
    for (let round = 1; ; round++) {
      let template: Template | undefined;
      try {
        template = await this.#cloner.warmUp(request, pack ?? false);
        if (count === undefined || !isWanted()) return;
        const key = poolKey(request, template);
        return await this.#pool.keep(
          key,
          { id, count, make, renew: (isStillWanted) => this.#prewarm(stack, lasting, isStillWanted) },
          signal,
        );
      } catch (error) {
        // It was replaced before it was sealed, or while the pool was filled: ready slots of it would serve nobody.
        const wasReplaced =
          template === undefined ? hasCode(error, 'TEMPLATE_CHANGED') : await isOutdated(template);
        if (round < PREWARM_ROUNDS && wasReplaced) continue;
        if (template === undefined) throw error;
        throw asRootfsError(`making ready slots of ${request.templatePath}`, error);
      }
    }
  }

  /**
   * Lists the sealed images that clones come from: what they hold, in how many extents, and when one is going to be
   * packed. The channel `microvm-rootfs:packing` of `node:diagnostics_channel` reports what became of each that was.
   */
  async sealedImages(): Promise<SealedImageInfo[]> {
    this.#requireOpen();
    return this.#sealed.images.list();
  }

  /** Returns the ready slots in the pool, of all processes, sorted by stack and size. */
  async readySlots(): Promise<ReadySlots[]> {
    this.#requireOpen();
    return readySlots(this.#folder);
  }

  /** For calls that may finish without the clones folder; ManagedFolder checks for itself. */
  #requireOpen(): void {
    if (this.#isClosed) throw closedError();
  }

  /** Removes what was made from an earlier state of a template, unless a VM has it. */
  #dropMadeOf(before: Template, gone: boolean): void {
    this.#pool.drop(before, gone);
    if (this.#folder.opened === undefined) return;
    this.#changedDigests.add(before.sha256);
  }

  #request(vmId: string, stack: string, options: CloneOptions): CloneRequest {
    const vm = parseVmId(vmId);
    const { name, templatePath } = this.#catalog.located(stack);
    const parsed = parseCloneOptions(() => `cloning ${name} for VM ${vm.safe}`, options);
    return { vm, stack: name, templatePath, ...parsed };
  }

  /**
   * {@link cloneForVm} with the image and its ext4 file system grown to `targetBytes`. A slot that was cloned without a
   * size can be grown once. With the template's own size nothing is grown and no program runs.
   *
   * Rejects like {@link cloneForVm}, and with `SHRINK_REFUSED` (smaller than the template), `SIZE_STAMP_MISMATCH`
   * (already grown to another size), `SLOT_IN_USE` (a process has the slot's image open), `IMAGE_INVALID` (it
   * holds no ext4 file system, or one with `mmp`), `TEMPLATE_CORRUPT`, `RESIZE_FAILED`, `E2FSCK_FAILED`,
   * `RESIZE2FS_NOT_FOUND`, `E2FSCK_NOT_FOUND`. After any of these the slot is unchanged.
   */
  async cloneForVmWithSize(
    vmId: string,
    stack: string,
    targetBytes: number,
    options: CloneOptions = {},
  ): Promise<VmRootfs> {
    this.#requireOpen();
    const sizeBytes = requireSizeBytes('targetBytes', targetBytes);
    const given = readOptions('options', options, CLONE_OPTION_KEYS);
    if (given.sizeBytes !== undefined && given.sizeBytes !== sizeBytes) {
      throw new RootfsError(
        'INVALID_ARGUMENT',
        `sizeBytes is ${show(given.sizeBytes)}, but targetBytes is ${sizeBytes}: give one of them`,
      );
    }
    return this.cloneForVm(vmId, stack, { ...given, sizeBytes });
  }

  /** {@link resizeExt4Image} with the programs of this registry's configuration. */
  async resizeExt4Image(path: string, targetBytes: number, options: Abortable = {}): Promise<void> {
    this.#requireOpen();
    const { resize2fsBin, e2fsckBin } = this.config;
    const given = readOptions('options', options, ['signal']);
    const programs: ResizeOptions = { resize2fsBin, e2fsckBin };
    return resizeExt4Image(path, targetBytes, { ...programs, ...given });
  }

  /**
   * Removes a VM's slot, even if a process has its image open; that process keeps the image until it closes it.
   * Resolves to false if there is no slot. The slot is gone when the call resolves. Its space is freed shortly
   * afterwards: see {@link drain}.
   *
   * Rejects with `INVALID_VM_ID`, `VM_ID_COLLISION` (the slot belongs to another id), `SLOT_INVALID` (not a slot) and,
   * with `refuseInUse`, `SLOT_IN_USE`.
   */
  async release(vmId: string, options: ReleaseOptions = {}): Promise<boolean> {
    this.#requireOpen();
    const vm = parseVmId(vmId);
    const given = readOptions('options', options, ['durable', 'refuseInUse']);
    optionalBoolean('durable', given.durable);
    optionalBoolean('refuseInUse', given.refuseInUse);
    return traced({ operation: 'release', vmId: vm.safe }, () => releaseSlot(this.#folder, vm, given));
  }

  /**
   * Cleans up after crashes and power cuts: removes what dead processes left behind, including unfinished stacks and
   * snapshots, and slots that are incomplete, unless a process has their image open. It is safe at any time, next to
   * other processes, and any number of times. A slot that cannot be read (`EIO`, `EACCES`) does not stop the rest; the
   * call rejects with the first such error once everything else is done.
   */
  async recover(options: Abortable = {}): Promise<RecoverReport> {
    this.#requireOpen();
    const signal = signalOf('recovering the clones folder', options);
    const { recover } = await import('./upkeep/recover.js');
    try {
      return await recover(
        {
          folder: this.#folder,
          others: [this.#catalogFolder, this.#snapshots.folder],
          sealed: this.#sealed,
          pool: this.#pool,
          templates: this.#templates,
        },
        signal,
      );
    } finally {
      await this.#digests.collect();
    }
  }

  /**
   * Tells whether a process has the image of a VM's slot open: a VMM, a loop device, a backup. `unknown` where the file
   * system has no leases (FUSE, NFS). The answer can be out of date as soon as it is given.
   *
   * Rejects with `INVALID_VM_ID`, `SLOT_NOT_FOUND`, `VM_ID_COLLISION`, `SLOT_INVALID`, `SLOT_TORN` (its raw id is
   * unreadable).
   */
  async slotInUse(vmId: string): Promise<SlotUse> {
    this.#requireOpen();
    return slotInUse(this.#folder, parseVmId(vmId));
  }

  /**
   * Releases every complete slot whose id is not in `keep`, unless its image is in use or that is unknown. Torn slots
   * are left to {@link recover}. Files, links and folders that are not slots are never touched. A slot that is cloned
   * at the same time, for an id that is not in `keep`, may be released as well: start no such VM while you collect.
   * Partial pulls that nobody has continued for seven days are removed as well, without `dryRun`.
   *
   * Rejects with `INVALID_ARGUMENT` and `INVALID_VM_ID`, before anything is released.
   */
  async gc(options: GcOptions): Promise<GcReport> {
    this.#requireOpen();
    const given = readOptions('options', options, ['keep', 'dryRun', 'signal']);
    const { keep } = given;
    if (typeof keep !== 'object' || keep === null || !(Symbol.iterator in keep)) {
      throw new RootfsError(
        'INVALID_ARGUMENT',
        `keep must be an array or a set of VM ids, got ${show(keep)}`,
      );
    }
    // A copy: the caller may change it while this waits.
    const kept = [...keep];
    if (kept.length === 0 && 'next' in keep) {
      throw new RootfsError(
        'INVALID_ARGUMENT',
        'keep is an iterator without ids, perhaps because it was read before: give an array or a set',
      );
    }
    const what = 'collecting slots';
    const dryRun = optionalBoolean('dryRun', given.dryRun) ?? false;
    const signal = optionalSignal(what, given.signal);
    const ids = await rawIds(new Task(what, signal), kept);
    const { collectGarbage } = await import('./upkeep/gc.js');
    // What cannot be removed now is removed by a later call, or by a pull.
    const old = dryRun ? [] : [this.#pulls, this.#snapshotPulls];
    for (const pulls of old) await pulls.removeOld(new Task(what, signal)).catch(() => {});
    return collectGarbage(this.#folder, ids, dryRun, signal);
  }

  /**
   * Reads templates and sealed images again, and with `clones` also the clones that share no blocks. Reports each one
   * that no longer holds the bytes of its digest. Templates that cannot be looked at, or whose digest is not known or
   * was of another state of the file, cannot be compared: `templatesNotRead` names them. Changes nothing.
   */
  async verify(options: VerifyOptions = {}): Promise<VerifyReport> {
    this.#requireOpen();
    const given = readOptions('options', options, ['clones', 'signal', 'onProgress']);
    optionalBoolean('clones', given.clones);
    optionalFunction('onProgress', given.onProgress);
    const what = `verifying ${this.config.clonesDir}`;
    const task = new Task(what, optionalSignal(what, given.signal));
    const { verify } = await import('./upkeep/verify.js');
    return this.#reads.run(task, ({ signal }) =>
      verify(this.#folder, this.#catalog, this.config.e2fsckBin, { ...given, signal: signal as AbortSignal }),
    );
  }

  /**
   * Yields every slot in the clones folder, complete or not, in no particular order. Files and folders that are not
   * slots are left out. Slots are read in batches, so that listing a hundred thousand of them takes little memory. A
   * slot that is made or released meanwhile may or may not appear. What cannot be read is thrown in the end, when all
   * others were yielded.
   *
   * @example for await (const { rawId, stack, sizeBytes } of registry.slots()) console.log(rawId, stack, sizeBytes);
   */
  async *slots(options: Abortable = {}): AsyncGenerator<SlotInfo, void, undefined> {
    this.#requireOpen();
    const signal = signalOf(`listing slots in ${this.config.clonesDir}`, options);
    yield* listSlots(this.#folder, this.#stacks, signal, this.#templateBytes);
  }

  /**
   * Returns everything that is known about a VM's slot, or undefined if there is none. The template is not hashed for
   * this: if its digest is unknown, `outdated` is undefined.
   *
   * Rejects with `INVALID_VM_ID`, `VM_ID_COLLISION`, `SLOT_TORN` (its raw id is unreadable).
   */
  async slot(vmId: string): Promise<SlotDetails | undefined> {
    this.#requireOpen();
    const digestNow: DigestNow = (stack) => this.#catalog.digestNow(stack);
    return slotDetails(this.#folder, this.#stacks, digestNow, this.#templateBytes, parseVmId(vmId));
  }

  /**
   * Measures what stacks, slots and partial pulls hold on disk, with FIEMAP: blocks that several images share are
   * counted once. Takes about 10 µs per image, and more for images with many extents.
   */
  async usage(options: Abortable = {}): Promise<UsageReport> {
    this.#requireOpen();
    const what = `measuring ${this.config.clonesDir}`;
    const task = new Task(what, signalOf(what, options));
    const { usage } = await import('./upkeep/usage.js');
    return this.#reads.run(task, async ({ signal }) => {
      const templates = await this.#catalog.templates(signal);
      const partial = [...(await this.#pulls.files()), ...(await this.#snapshotPulls.files())];
      return usage(this.#folder, this.#stacks, templates, partial, signal);
    });
  }

  /**
   * Makes a new slot from the present contents of another VM's slot, to fork a paused VM. The paused VMM may have the
   * image open: the fork has what the VMM has written so far, but not what the VMM or its guest still hold in memory.
   * Flush first, or fork the memory as well. The new slot carries the stamps of its parent, which name the template of
   * both.
   *
   * Rejects with `INVALID_VM_ID`, `SLOT_NOT_FOUND`, `SLOT_INVALID`, `SLOT_TORN`, `VM_ID_COLLISION`, `SLOT_EXISTS` (the
   * new slot), `SOURCE_CHANGED` (the parent was written to meanwhile), `SLOT_IN_USE` (with `refuseInUse`), `SLOT_BUSY`.
   */
  async forkSlot(fromVmId: string, vmId: string, options: ForkOptions = {}): Promise<DerivedRootfs> {
    this.#requireOpen();
    const from = parseVmId(fromVmId);
    const vm = parseVmId(vmId);
    const { refuseInUse: refuses, ...others } = readOptions('options', options, [
      ...COPY_OPTION_KEYS,
      'refuseInUse',
    ]);
    const copy = parseCopyOptions(`forking ${from.safe} to ${vm.safe}`, others);
    const refuseInUse = optionalBoolean('refuseInUse', refuses) ?? false;
    return traced({ operation: 'fork', vmId: vm.safe }, () =>
      forkSlot({
        folder: this.#folder,
        stacks: this.#stacks,
        templateBytes: this.#templateBytes,
        from,
        vm,
        refuseInUse,
        options: copy,
      }),
    );
  }

  /**
   * Gives a slot's image a path in another folder, such as a jailer's chroot. By default this is a hardlink: what the
   * VM writes there is in the slot. If the folder is on another file system, or the clone is its template, the result
   * is a reflink or a copy, independent of the slot. `strategy` and `attempts` say which. Grow the slot before you
   * export it, not after. `owner` and `mode` of a hardlink apply to the slot's image as well: `SHARED_INODE` where they
   * would change for a name that somebody else gave it, such as a backup's.
   *
   * Follows no symbolic link that another user may have made. The same export again serves where the file is the slot's
   * image. A hardlink stays where only its owner, mode or flush failed: the error says so, and the same call again
   * completes it.
   *
   * Rejects with `FILE_EXISTS`, `SHARED_INODE`, `UNSAFE_PATH`, `FOLDERS_OVERLAP` (a place where it would be taken for a
   * template, a slot or a snapshot), `SOURCE_CHANGED`, and with the codes of {@link forkSlot} that concern the parent.
   */
  async exportTo(
    vmId: string,
    path: string,
    options: Omit<ForkOptions, 'refuseInUse'> = {},
  ): Promise<ExportedImage> {
    this.#requireOpen();
    const vm = parseVmId(vmId);
    const dest = absolutePath('path', path);
    const copy = parseCopyOptions(`exporting ${vm.safe} to ${dest}`, options);
    return traced({ operation: 'export', vmId: vm.safe, path: dest }, () =>
      exportSlot(this.#folder, this.#templateBytes, vm, dest, {
        ...copy,
        folders: this.config,
        sharers: this.#sharers,
      }),
    );
  }

  /**
   * Saves a VM's disk as it is now, together with the files of the same moment (`with`: the memory and state that the
   * VMM wrote), in a folder of its own in `snapshotsDir`, with a manifest that `sha256sum -c` reads. Everything is on
   * disk when the call resolves. Pause the VM until then. Files are copied by reflink where possible; the copies are
   * then hashed.
   *
   * Rejects with `INVALID_SNAPSHOT_NAME`, `SNAPSHOT_EXISTS`, `UNSAFE_PATH` (a link, or a file of another user, in
   * `with`), `SOURCE_TOO_LARGE` (a file of more than 1 TiB in `with`), `SOURCE_CHANGED`, and with the codes of
   * {@link forkSlot} that concern the parent.
   */
  async snapshotSlot(vmId: string, name: string, options: SnapshotOptions = {}): Promise<NewSnapshot> {
    this.#requireOpen();
    const vm = parseVmId(vmId);
    const given = readOptions('options', options, ['with', 'refuseInUse', 'signal', 'onProgress']);
    const { with: others = [], onProgress } = given;
    if (!Array.isArray(others))
      throw new RootfsError('INVALID_ARGUMENT', `with must be an array of paths, got ${show(others)}`);
    const files = others.map((path, i) => absolutePath(`with[${i}]`, path));
    const refuseInUse = optionalBoolean('refuseInUse', given.refuseInUse) ?? false;
    optionalFunction('onProgress', onProgress);
    this.#snapshots.pathOf(name);
    const signal = optionalSignal(`making snapshot ${name}`, given.signal);
    return traced({ operation: 'snapshot', vmId: vm.safe }, () =>
      this.#snapshots.take(vm, name, files, refuseInUse, { signal, onProgress }),
    );
  }

  /** Yields the complete snapshots, in no particular order. Reads only their manifests. */
  async *snapshots(): AsyncGenerator<Snapshot, void, undefined> {
    this.#requireOpen();
    yield* this.#snapshots.list();
  }

  /**
   * Reads all files of a snapshot again. Rejects with `SNAPSHOT_CORRUPT`, which names the first file that changed,
   * `SNAPSHOT_NOT_FOUND` and `INVALID_SNAPSHOT_NAME`.
   */
  async verifySnapshot(name: string, options: HashOptions = {}): Promise<Snapshot> {
    this.#requireOpen();
    const { onProgress, ...given } = readOptions('options', options, ['signal', 'onProgress']);
    optionalFunction('onProgress', onProgress);
    this.#snapshots.pathOf(name);
    const signal = optionalSignal(`verifying snapshot ${name}`, given.signal);
    return this.#snapshots.verify(name, { signal, onProgress });
  }

  /**
   * Makes a new slot from a snapshot. Its files are verified before the first restore. After that, a restore in this or
   * any other process is as quick as a clone, as long as the files' identities are the same; {@link verifySnapshot}
   * reads everything again.
   *
   * Rejects like {@link verifySnapshot}, and with `SLOT_EXISTS`, `SLOT_INVALID`, `VM_ID_COLLISION`, `INVALID_VM_ID`.
   */
  async restoreSnapshot(name: string, vmId: string, options: RestoreOptions = {}): Promise<RestoredRootfs> {
    this.#requireOpen();
    return this.#restoring(name, vmId, options)();
  }

  /** Reads the request now. */
  #restoring(name: string, vmId: string, options: RestoreOptions = {}): () => Promise<RestoredRootfs> {
    const vm = parseVmId(vmId);
    const { onProgress, ...others } = readOptions('options', options, [...COPY_OPTION_KEYS, 'onProgress']);
    this.#snapshots.pathOf(name);
    const copy = parseCopyOptions(`restoring snapshot ${name} to ${vm.safe}`, others);
    optionalFunction('onProgress', onProgress);
    return () =>
      traced({ operation: 'restore', vmId: vm.safe }, () =>
        this.#restorer.restore(name, vm, copy, onProgress),
      );
  }

  /**
   * Makes many slots from snapshots at once. Each snapshot is verified at most once. Resolves to one settled result per
   * request, in order. A request that fails or is invalid does not affect the others. Requests are read as by
   * {@link cloneMany}.
   */
  async restoreMany(
    requests: readonly RestoreManyRequest[],
  ): Promise<PromiseSettledResult<RestoredRootfs>[]> {
    const parse = (name: string, request: RestoreManyRequest) => {
      const { snapshot, vmId, options } = readOptions(name, request, ['snapshot', 'vmId', 'options']);
      return this.#restoring(snapshot, vmId, options);
    };
    return this.#many(requests, parse, (restores) => settleInLanes(restores, RESTORES_AT_ONCE));
  }

  /**
   * Keeps `count` ready slots of a snapshot from now on, so that a restore with the same owner and mode is only a
   * rename (`pooled: true`). All files are verified first. The pool is refilled like that of a stack: see
   * {@link prewarm}. Without `count` the snapshot is only verified. With `count: 0` such ready slots are discarded, of
   * all processes; they also go with the snapshot. Where clones are copies, each ready slot takes the space of a copy
   * of the disk.
   *
   * Rejects like {@link verifySnapshot}, and with `SOURCE_CHANGED`.
   */
  async prewarmSnapshot(name: string, options: PrewarmSnapshotOptions = {}): Promise<void> {
    this.#requireOpen();
    const given = readOptions('options', options, ['count', 'owner', 'mode', 'signal']);
    const { count, ...others } = given;
    if (count !== undefined) requireCount('count', count);
    const { owner, mode, signal } = parseCopyOptions(`making ready slots of snapshot ${name}`, others);
    await this.#restorer.prewarm(name, { count, owner, mode, signal });
  }

  /**
   * Removes a snapshot. Resolves to false if there is none, or if another call removed it first; one that was taken
   * under that name meanwhile stays. Rejects with `SNAPSHOT_CORRUPT` if the folder is not a snapshot, and with
   * `SLOT_BUSY`.
   */
  async removeSnapshot(name: string): Promise<boolean> {
    this.#requireOpen();
    return this.#snapshots.remove(name);
  }

  /** Resolves when background work is done: the space of released slots is free and the pool is full. */
  async drain(): Promise<void> {
    await this.#background.drain();
    await this.#catalogFolder.drain();
    await this.#folder.drain();
    await this.#snapshots.drain();
  }

  /**
   * Stops background work, waits for slots, stacks and snapshots that are being made, and closes all descriptors. Calls
   * that read whole files are ended, and reject with `CLOSED`: {@link verify}, {@link verifySnapshot}, those that have
   * to hash a template or verify a snapshot first, and a {@link snapshotSlot} with more than 64 GiB to hash. A
   * {@link cloneMany} or {@link restoreMany} is waited for to its end. Afterwards every call rejects with `CLOSED`, and
   * so does each result of these two.
   */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#pool.close();
    this.#sealed.packer.stop();
    const failures: unknown[] = [];
    await Promise.allSettled(this.#manyCalls);
    // Pulls, and what is done in the catalog, may have a template to hash. One that fails leaves no other open.
    const first = [this.#pulls, this.#snapshotPulls, this.#catalogFolder, this.#reads];
    for (const each of [...first, this.#background, this.#snapshots, this.#folder]) {
      await each.close().catch((error: unknown) => failures.push(error));
    }
    this.#sealed.close();
    this.#templates.close();
    if (failures.length > 0) throw failures[0];
  }
}

function aboutClone({ vm, stack }: CloneRequest) {
  return { operation: 'clone', vmId: vm.safe, stack } as const;
}

function signalOf(what: string, options: Abortable): AbortSignal | undefined {
  return optionalSignal(what, readOptions('options', options, ['signal']).signal);
}
