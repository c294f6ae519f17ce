// The addon as the rest of the library sees it. Arguments have been validated before they come here; failures of the
// system reject with a SystemError, outcomes that a caller has to decide about are values.
import { isSystemError, RootfsError, type SystemError } from '../system/errors.js';
import type { Strategy } from '../system/strategy.js';
import type { Identity } from './identity.js';
import { loadAddon } from './load-addon.js';

declare const kind: unique symbol;
/** An open managed folder, with this session's staging folder. */
export type NativeFolder = { readonly [kind]: 'folder' };
/** An open image. */
export type NativeSource = { readonly [kind]: 'source' };
/** A SHA-256 under way. */
export type NativeDigest = { readonly [kind]: 'digest' };
/** A slot in staging. Disposing of it removes it unless it was published. */
export type NativeStagedSlot = { readonly [kind]: 'staged slot' };
/** A slot whose folder is locked. Disposing of it unlocks. */
export type NativeLockedSlot = { readonly [kind]: 'locked slot' };

/** A folder that others may be able to write to. Names relative to it cannot lead out of it. */
export type NativeGuardedFolder = { readonly [kind]: 'guarded folder' };
/** A copy of a file that has no name yet. */
export type NativeFileCopy = { readonly [kind]: 'file copy' };
/** What files hold on disk, blocks that several share counted once. */
export type NativeDiskUsage = { readonly [kind]: 'disk usage' };
/** A pipe to which a program writes its output. */
export type NativePipe = { readonly [kind]: 'pipe' };

/** A {@link SlotPlan} that was read once, for many clones. */
export type NativePlan = { readonly [kind]: 'plan' };

/** Bits of {@link SlotPlan.rungs}. */
export const RUNG = { reflink: 1, hardlink: 2, copy: 4 } as const;

export interface FileInfo {
  readonly identity: Identity;
  readonly regular: boolean;
  /** Permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Allocated blocks of 512 bytes. */
  readonly blocks: number;
}

/** A small file in a slot: its text, undefined if there is none, null if it cannot be read. */
export type SmallFile = string | null | undefined;

export interface SlotState {
  readonly kind: 'absent' | 'folder' | 'not-a-folder';
  /** Given for a folder. */
  readonly folder?: Identity;
  readonly image?: FileInfo;
  /** One of our files other than the image is there, even if it is empty. */
  readonly hasSidecars: boolean;
  readonly sharesExtents: boolean;
  readonly stamp: SmallFile;
  /** When the stamp was written; without one, when anything last got a name in the folder. */
  readonly createdAtMs: number;
  readonly sizeStamp: SmallFile;
  readonly newSizeStamp: SmallFile;
  /** Also empty if the raw id is missing although the stamp says that there is one. */
  readonly rawId: SmallFile;
  readonly stack: SmallFile;
  /** The boot in which the image was copied, until its data has been flushed. */
  readonly unsettled: SmallFile;
  /** How many of the image's further names `exportTo` made. Looked for only where there are several. */
  readonly exportedNames: number;
  /** Made as a hardlink of its template. Looked for only where the image has several names. */
  readonly linked: boolean;
}

/** What a slot's own files say about it. */
export interface SlotFacts
  extends Pick<
    SlotState,
    | 'kind'
    | 'hasSidecars'
    | 'stamp'
    | 'createdAtMs'
    | 'sizeStamp'
    | 'newSizeStamp'
    | 'rawId'
    | 'stack'
    | 'unsettled'
  > {
  readonly image?: {
    readonly regular: boolean;
    readonly identity: Pick<Identity, 'sizeBytes'>;
  };
}

/** Bytes of a file's blocks on disk. */
export interface FileBlocks {
  readonly aloneBytes: number;
  readonly sharedBytes: number;
  /** Undefined without FIEMAP. */
  readonly extents?: number;
}

/** Where something staged can be published to. `top` is the managed folder itself, where slots and snapshots are. */
export type Place = 'top' | 'sealed' | 'pool';

/** What the clones of one template have in common. */
export interface SlotPlan {
  /** Small files to write beside the image: name, contents, name, contents, … */
  readonly sidecars: readonly string[];
  /** The source as it must be. */
  readonly expected: Identity;
  /** What must be unchanged for `sidecars` to be true. Only the functions that clone slots look at it. */
  readonly templatePath?: string;
  readonly templateExpected?: Identity;
  /** Files that belong to the source, as they must be. Only looked at by `cloneFile`. */
  readonly siblings?: readonly { readonly path: string; readonly identity: Identity }[];
  /** Allowed rungs, of {@link RUNG}. A copy comes last. */
  readonly rungs: number;
  /** A copy is made in few extents, and hashed on the way, unless it is `unhashed`. */
  readonly packed?: boolean;
  readonly unhashed?: boolean;
  readonly owner?: { readonly uid: number; readonly gid: number } | undefined;
  readonly mode?: number | undefined;
  readonly durable: boolean;
}

/** One clone: the slot's name, the raw id if it differs, and the ready slot to take instead of building one. */
export type NativeClone = [
  source: NativeSource,
  plan: NativePlan,
  slot: string,
  rawId: string | undefined,
  ready: string | undefined,
];

export interface NativeAttempt {
  readonly strategy: Strategy;
  /** Negative. 0 means that the clone was shorter than its source. */
  readonly errno: number;
}

export interface Built {
  readonly strategy: Strategy;
  readonly attempts: readonly NativeAttempt[];
}
export interface Created extends Built {
  readonly status: 'created';
  /** Given if making the clone changed it (a hardlink changes the count of links). */
  readonly sourceNow?: Identity;
}
export interface Staged extends Built {
  readonly status: 'staged' | 'copy-needed';
  readonly staged: NativeStagedSlot;
  readonly imagePath: string;
}
interface Exists {
  readonly status: 'exists';
  readonly existing: SlotState;
}
export interface NotCloned extends Built {
  readonly status: 'template-changed' | 'source-changed' | 'shared-inode';
}
/**
 * The most frequent outcomes are a string, which is quicker than an object: created by the first rung, or taken from
 * the pool.
 */
export type CloneOutcome = 'reflinked' | 'pooled' | Created | Staged | Exists | NotCloned;

/**
 * The outcome of a fork in one trip. After `copy-needed` and `template-changed` it takes more trips, and nothing was
 * made. `parent` is whole if the fork was made.
 */
interface NativeFork {
  readonly status: 'created' | 'exists' | 'source-changed' | 'template-changed' | 'copy-needed';
  readonly parent: SlotState;
}

/** The chunks of an image that come through a pipe. */
export interface ExpectedChunks {
  /** How many bytes come before the first chunk. */
  readonly skipBytes: number;
  /** The offset and the length of each chunk. */
  readonly ranges: Float64Array;
  /** The digests of all chunks, in hex, as one text. */
  readonly sha256s: string;
  /** The bytes that follow the last chunk. */
  readonly endMark: string;
}

export interface OpenedSource {
  readonly source: NativeSource;
  readonly info: FileInfo;
  /** A name that no other file system has, `xfs:…`; empty where none can be trusted. */
  readonly filesystem: string;
  /** Undefined where leases cannot be had. */
  readonly openForWriting?: boolean;
}

export interface GuardedFile extends Omit<OpenedSource, 'openForWriting'> {
  readonly guarded: boolean;
}

/** @internal See {@link NativeAddon.fileFacts}. */
export type FileTexts = readonly (Buffer | number)[];

export interface NativeAddon {
  /** Opens a regular file. EINVAL with syscall `open` for anything else, which is not opened. */
  openSource(path: string): Promise<OpenedSource>;
  /** What an open file is now. */
  checkSource(source: NativeSource): Promise<Omit<OpenedSource, 'source' | 'filesystem'>>;
  /** One for each path that is a regular file, else undefined. Opens none of them. */
  identities(
    paths: readonly string[],
  ): Promise<((Identity & Pick<OpenedSource, 'filesystem'>) | undefined)[]>;
  /**
   * The files whose links this process has changed since the change of this number; undefined if there was no change.
   * Starts no trip. `seen` is the number for the next call.
   */
  filesLinkedSince(seen: number):
    | {
        readonly seen: number;
        readonly files: readonly (Identity & Pick<OpenedSource, 'filesystem'>)[];
      }
    | undefined;
  /** What symbolic links in one folder hold; undefined where there is none. */
  readLinks(folder: string, names: readonly string[]): Promise<(string | undefined)[]>;
  /** Flushes the file, not its name. */
  flushSource(source: NativeSource): Promise<void>;
  /** The SHA-256 of a text's UTF-8 bytes. (Loading node:crypto takes longer than a first clone should.) */
  sha256(text: string): string;
  /** The SHA-256 of an open file, to be computed in steps. */
  newDigest(source: NativeSource): NativeDigest;
  /** Hashes about `budgetBytes`; `sha256` is there when the end was reached. */
  digestStep(digest: NativeDigest, budgetBytes: number): Promise<{ bytesDone: number; sha256?: string }>;
  /** EOPNOTSUPP where the file system has no FIEMAP. */
  extentCount(source: NativeSource): Promise<number>;
  /**
   * Whether any process has the image open; undefined where leases cannot be had. `mustKnow`: EACCES if that is because
   * the image is another user's, and this process lacks CAP_LEASE and CAP_SETUID.
   */
  openElsewhere(path: string, mustKnow: boolean): Promise<boolean | undefined>;
  /** Whether the ext4 file system in an image is as long as resize2fs makes it there. True if there is none. */
  fillsImage(path: string): Promise<boolean>;

  /**
   * A folder that others may be able to write to. ELOOP, with the path of the link, where somebody other than root and
   * this process's user may have made a link on the way. `own`: the folder is ours alone, and links are followed.
   */
  openGuardedFolder(path: string, own: boolean): Promise<NativeGuardedFolder>;
  /** Flushes the names in it, of files that were flushed themselves. */
  flushNames(folder: NativeGuardedFolder): Promise<void>;
  /**
   * A regular file; EINVAL for anything else, ELOOP for a symbolic link and for links on the way as above. `guarded`:
   * nobody else can put names into its folder.
   */
  openGuardedFile(path: string): Promise<GuardedFile>;
  /**
   * A hardlink of a slot's image, with owner and mode. `refused`, with its errno (negative): there can be no hardlink
   * between these two places. `kept`: there could be one, and would change what `keepsOwnerAndMode`. `moved`: the slot
   * was released, or has another image now. EEXIST if another file has the name.
   */
  exportImage(
    handle: NativeFolder,
    request: Pick<SlotPlan, 'owner' | 'mode' | 'durable'> & {
      slot: string;
      image: NativeSource;
      folder: NativeGuardedFolder;
      name: string;
      keepsOwnerAndMode: boolean;
    },
  ): Promise<{ status: 'linked' | 'refused' | 'kept' | 'moved'; errno: number }>;

  /**
   * A copy that appears under its name when it is published. EEXIST if the name is taken. `errno` (negative) if it
   * could not be a reflink.
   */
  newFileCopy(
    source: NativeSource,
    folder: NativeGuardedFolder,
    name: string,
  ): Promise<{ copy: NativeFileCopy; reflinked: boolean; errno: number }>;
  /** Copies about `budgetBytes` more. */
  fileCopyStep(copy: NativeFileCopy, budgetBytes: number): Promise<{ bytesDone: number; done: boolean }>;
  /** `durable`: flushes the file, not its name. */
  publishFileCopy(
    copy: NativeFileCopy,
    ownerAndMode: Pick<SlotPlan, 'owner' | 'mode'>,
    durable: boolean,
  ): Promise<void>;

  /** Files added to it are added to `whole` as well. Only one job at a time may add to those with the same `whole`. */
  newDiskUsage(whole?: NativeDiskUsage): NativeDiskUsage;
  /** What each file holds, or its error. Never through a symbolic link. */
  measureFiles(usage: NativeDiskUsage, paths: readonly string[]): Promise<(FileBlocks | SystemError)[]>;
  /** In bytes, blocks that files share counted once. */
  diskUsageTotal(usage: NativeDiskUsage): Promise<number>;

  /**
   * What a folder holds, up to `limit` entries: of each its type as in d_type of readdir(3) (one byte, 0 where the file
   * system does not say), the bytes of its name, and a NUL. Follows symbolic links. See folder/names-in.ts.
   *
   * @internal
   */
  listFolder(path: Buffer, limit: number): Promise<Buffer>;
  /** From now on, files made in the folder have the mode that they are made with, and no access list. */
  removeDefaultAcl(folder: string): Promise<void>;
  /**
   * What files of a tree are, by the bytes of their paths: fourteen numbers each, and for some a symbolic link's target
   * (or nothing) with the names and values of extended attributes. An errno stands for a value that the file system
   * keeps to itself. Never through a symbolic link. See publish/tree/file-rows.ts.
   *
   * @internal
   */
  fileFacts(paths: readonly Buffer[]): Promise<[numbers: ArrayBuffer, texts: (FileTexts | undefined)[]]>;
  /**
   * Reads whole files. `numbers` holds the length and inode of each; a file that was replaced or is shorter now is
   * undefined. Never follows a symbolic link.
   *
   * @internal
   */
  readSmallFiles(paths: readonly Buffer[], numbers: BigUint64Array): Promise<(Buffer | undefined)[]>;
  /**
   * Where a file of this length holds data: start and end of each range.
   *
   * @internal
   */
  dataRanges(path: Buffer, sizeBytes: number): Promise<Float64Array>;

  /** A pipe from a program, which writes to `writeFd`. */
  newPipe(): { pipe: NativePipe; writeFd: number };
  /** Call it when the program has its end: the output ends only when nobody else can write. */
  closeWriteEnd(pipe: NativePipe): void;
  /**
   * Reads chunks of an image from the pipe, and writes each to its place if it has its SHA-256. `written` counts the
   * chunks before the first that is missing or wrong. `isWhole`: the mark follows right after the last chunk.
   */
  receiveChunks(
    pipe: NativePipe,
    imageFd: number,
    path: string,
    expected: ExpectedChunks,
  ): Promise<{ written: number; isWhole: boolean }>;
  /**
   * Reserves blocks for ranges of an image, given by the start and the end of each. If the disk is full, it reserves
   * none, and they are holes. Does nothing on a file system that cannot reserve.
   */
  reserveRanges(imageFd: number, path: string, ranges: Float64Array): Promise<void>;
  /** Makes ranges of an image holes. */
  giveBackRanges(imageFd: number, path: string, ranges: Float64Array): Promise<void>;

  /**
   * Starts a program: its path and arguments, its whole environment (`NAME=value`), whether it is fed, whether it is to
   * have a process group of its own, whether it is killed when `lifeline` is closed, also by the end of this process,
   * and where it writes its output instead of to a pipe. The descriptors are our ends. The caller has to call
   * `reapProgram` until the program has ended.
   */
  startProgram(
    args: readonly string[],
    environment: readonly string[],
    feeds: boolean,
    ownGroup: boolean,
    diesWithUs: boolean,
    outputFd: number | undefined,
  ): Promise<{
    id: number;
    stdin: number | undefined;
    stdout: number | undefined;
    stderr: number;
    lifeline: number | undefined;
  }>;
  /** The wait() status of a program that ended, else undefined. Until it is reaped, no other process gets its id. */
  reapProgram(id: number): number | undefined;

  /** Never through a symbolic link; null for more than `limitBytes` bytes as well. */
  readSmallFile(path: string, limitBytes: number): Promise<SmallFile>;

  /** The folder must exist. */
  openFolder(
    folderPath: string,
  ): Promise<{ handle: NativeFolder; sessionPath: string; reflinks: boolean | undefined }>;
  /** Whether files in the folder can share blocks; undefined if there is no space to try it. */
  probeReflink(handle: NativeFolder): Promise<boolean | undefined>;
  /** Removes this session's staging folder. */
  closeFolder(handle: NativeFolder): Promise<void>;
  /**
   * Removes what dead sessions left in staging, and trash: about `budget` files. `stillOpen`: on FUSE or NFS something
   * was still open. `error`: the first of what cannot be removed; the rest was, or there is `more`.
   */
  sweep(
    handle: NativeFolder,
    budget: number,
  ): Promise<{
    stagingRemoved: number;
    trashRemoved: number;
    more: boolean;
    stillOpen: boolean;
    error?: SystemError;
  }>;

  /** Many in one trip, each with its state or its error. */
  inspectSlots(handle: NativeFolder, slots: readonly string[]): Promise<(SlotState | SystemError)[]>;
  /** The same as two flat tables, five numbers and six texts a slot: see slot-survey.ts. */
  surveySlots(
    handle: NativeFolder,
    slots: readonly string[],
  ): Promise<[numbers: Float64Array, texts: (SmallFile | SystemError)[]]>;
  /** What is read once for all clones of a template. */
  newPlan(plan: SlotPlan): NativePlan;
  /** Looks for the slot, builds it and publishes it. */
  cloneSlot(handle: NativeFolder, ...clone: NativeClone): Promise<CloneOutcome>;
  /** The same from the file at the plan's `templatePath`, which is opened on the way. */
  cloneFile(
    handle: NativeFolder,
    plan: NativePlan,
    slot: string,
    rawId: string | undefined,
    ready: string | undefined,
  ): Promise<CloneOutcome>;
  /** The same on the calling thread. Throws what the other rejects with. */
  cloneSlotSync(handle: NativeFolder, ...clone: NativeClone): CloneOutcome;
  /** Many in one trip, each with its outcome or its error. */
  cloneSlots(handle: NativeFolder, clones: NativeClone[]): Promise<(CloneOutcome | SystemError)[]>;
  /** The same without publishing. */
  stageSlot(handle: NativeFolder, ...clone: NativeClone): Promise<CloneOutcome>;
  /** Builds an image in staging that is to take the place of a slot's. */
  stageImage(handle: NativeFolder, source: NativeSource, plan: SlotPlan): Promise<Staged>;
  /** Makes a slot from another's present contents. Raw ids are given only if they differ from the slots' names. */
  forkSlot(
    handle: NativeFolder,
    request: Pick<SlotPlan, 'owner' | 'mode' | 'durable'> & {
      from: string;
      fromRawId: string | undefined;
      slot: string;
      rawId: string | undefined;
      /** The digest and the size of the template, which an image without a size stamp must have. */
      templateSha256: string | undefined;
      templateBytes: number | undefined;
    },
  ): Promise<NativeFork>;
  /** `sha256` is there when a packed copy is done. */
  copyStep(
    staged: NativeStagedSlot,
    budgetBytes: number,
    /** With the lowest priority for the disk. */
    idle?: boolean,
  ): Promise<{ bytesDone: number; done: boolean; sha256?: string }>;
  /** Flushes a copy, unless `unsettled` is among its sidecars. */
  publishSlot(
    staged: NativeStagedSlot,
    place: Place,
    name: string,
    sizeBytes: number,
    sidecars: readonly string[],
  ): Promise<'created' | 'exists' | 'source-changed'>;
  /** Removes it unless it was published, and lets go of the handle. */
  discardSlot(staged: NativeStagedSlot): Promise<void>;
  /** Moves a sealed image or a pooled slot into trash. */
  discardFolder(handle: NativeFolder, place: Place, name: string): Promise<void>;

  /** `heedOlder`: a lock on the slot's folder, as versions before 0.1.0 take it, counts as well. */
  lockSlot(
    handle: NativeFolder,
    slot: string,
    heedOlder: boolean,
  ): Promise<NativeLockedSlot | 'busy' | 'absent'>;
  /** Completes or undoes a grow that was cut off half-way through publishing. */
  finishGrow(locked: NativeLockedSlot): Promise<void>;
  /** `mustKnow` as for `openElsewhere`. */
  openSlotImage(
    locked: NativeLockedSlot,
    mustKnow: boolean,
  ): Promise<{ source: NativeSource; info: FileInfo; inUse: boolean }>;
  /** Puts the staged image in the place of the slot's. */
  replaceImage(
    locked: NativeLockedSlot,
    staged: NativeStagedSlot,
    replacement: {
      /** The slot's image, which must be as `expected`. */
      readonly image: NativeSource;
      readonly expected: Identity;
      /** Of the new image. Undefined: the slot keeps what it has. */
      readonly sizeStamp: string | undefined;
      readonly refuseInUse: boolean;
    },
  ): Promise<'done' | 'in-use' | 'image-changed' | 'released'>;
  /**
   * Sets owner and mode of a published slot's image. False, and nothing is changed, if the folder or the image was
   * replaced.
   */
  setSlotOwnerAndMode(
    handle: NativeFolder,
    slot: string,
    folder: Identity,
    image: Identity,
    ownerAndMode: Pick<SlotPlan, 'owner' | 'mode'>,
  ): Promise<boolean>;
  /**
   * Which file the image in each of these folders is: its device and its inode, zeros if it cannot be looked at. See
   * slot/shared-image.ts.
   */
  identifyImages(folder: string, names: readonly string[], followLinks: boolean): Promise<BigUint64Array>;

  /** Flushes a slot that was published without a flush. False, and nothing is promised, if its folder was replaced. */
  flushSlot(handle: NativeFolder, slot: string, folder: Identity): Promise<boolean>;
  /** Flushes those slots that were copied in this boot, and removes their `unsettled` files. */
  flushCopiedSlots(handle: NativeFolder, slots: readonly string[], bootId: string): Promise<void>;

  /** Takes the slot, or the snapshot, out in one rename, and moves it into trash. See native/slot/release.h. */
  releaseSlot(
    handle: NativeFolder,
    request: {
      slot: string;
      rawId?: string | undefined;
      /** The folder of a slot that is torn: released whatever raw id it has, if it is still that folder. */
      torn?: Identity | undefined;
      /** Not a slot but a snapshot, if its folder is still this open one; else `absent` or `not-a-slot`. */
      snapshotFd?: number | undefined;
      refuseInUse?: boolean | undefined;
      durable?: boolean | undefined;
    },
  ): Promise<{
    status: 'released' | 'absent' | 'not-a-slot' | 'collision' | 'torn' | 'in-use' | 'busy';
    rawId: string;
  }>;

  /** Lets go of a handle now rather than when it is collected. */
  dispose(
    handle:
      | NativePlan
      | NativeFolder
      | NativeSource
      | NativeDigest
      | NativeStagedSlot
      | NativeLockedSlot
      | NativeGuardedFolder
      | NativeFileCopy
      | NativeDiskUsage
      | NativePipe,
  ): void;
}

/** One slot. */
export async function inspectSlot(handle: NativeFolder, slot: string): Promise<SlotState> {
  const [state] = (await native().inspectSlots(handle, [slot])) as [SlotState | SystemError];
  if (isSystemError(state)) throw state;
  return state;
}

let loaded: NativeAddon | undefined;

/** The addon, loaded at the first call, so that importing the library works everywhere. */
export function native(): NativeAddon {
  loaded ??= load();
  return loaded;
}

function load(): NativeAddon {
  if (process.platform !== 'linux') {
    throw new RootfsError(
      'UNSUPPORTED_PLATFORM',
      'microvm-rootfs works on Linux only: it needs FICLONE and other Linux system calls, and this is ' +
        `${process.platform}`,
    );
  }
  return loadAddon() as NativeAddon;
}
