// Snapshots of slots: the disk, and whatever belongs to the same moment (a VM's memory and state), each file with its
// digest.
//
//   <snapshotsDir>/<name>/rootfs.ext4   the disk, by reflink where that is possible
//                         …             the other files
//                         SHA256SUMS    written last: without it there is no snapshot
//
// Built in staging and published by one rename, when all of it has reached the disk.

import { join } from 'node:path';
import { native } from '../addon/native.js';
import { LOST_AND_FOUND } from '../catalog/catalog.js';
import type { StacksByDigest } from '../catalog/stacks-by-digest.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { namesIn } from '../folder/names-in.js';
import { otherSpelling } from '../folder/spelling.js';
import { readOwnFile } from '../folder/state-files.js';
import type { Scattered } from '../image/extents.js';
import type { CopiedFile } from '../image/file-copy.js';
import { releaseUnlessBusy } from '../slot/release.js';
import { slotBusyError } from '../slot/slot-errors.js';
import { requireUnchanged, type SlotImage, type TemplateBytes, withSlotImage } from '../slot/slot-image.js';
import type { VmId } from '../slot/vm-id.js';
import { isPath, NAME_BYTES_LIMIT, show } from '../system/arguments.js';
import { asRootfsError, RootfsError } from '../system/errors.js';
import { Failures } from '../system/failures.js';
import { flushName } from '../system/flush.js';
import { isMissing } from '../system/is-missing.js';
import type { Progress } from '../system/long-work.js';
import type { Strategy } from '../system/strategy.js';
import { Task } from '../system/task.js';
import { Turns } from '../system/turns.js';
import { MINUTES_BYTES, requireAtMost } from '../system/turns-by-size.js';
import type { UntilClosed } from '../system/until-closed.js';
import {
  type HeldSnapshot,
  type OpenSnapshot,
  openFiles,
  openSnapshotFolder,
  unlessMissing,
  withSnapshot,
} from './open-snapshot.js';
import type { ReadySnapshots } from './ready-snapshots.js';
import { closeAll, hashing, verifyAll, type Watched } from './snapshot-files.js';
import {
  factsOf,
  formatManifest,
  isPlainName,
  parseManifest,
  SNAPSHOT_MANIFEST_BYTES_LIMIT,
  SNAPSHOT_MANIFEST_FILE,
  type SnapshotFacts,
  type SnapshotFile,
  type SnapshotManifest,
  type SnapshotRecord,
  totalBytes,
} from './snapshot-manifest.js';
import {
  copyAll,
  describeCopies,
  publish,
  requireNames,
  type SnapshotSource,
  snapshotExistsError,
  withSources,
} from './take-snapshot.js';
import type { VerifiedSnapshots } from './verified-snapshots.js';

export interface Snapshot extends SnapshotFacts {
  readonly name: string;
  /** Its folder. */
  readonly path: string;
}

export interface NewSnapshot extends Snapshot, Scattered {
  /** How each file was copied, in the order of `files`. */
  readonly strategies: readonly Strategy[];
}

/** The caller's signal and progress callback. */
interface Watcher {
  readonly signal: AbortSignal | undefined;
  readonly onProgress: ((progress: Progress) => void) | undefined;
}

// Each has the folder open while it waits for others.
const removing = new Turns(32);

interface SnapshotsParts {
  /** The folder of snapshots. It is opened like the clones folder: recovery removes what a crash leaves in staging. */
  readonly folder: ManagedFolder;
  readonly clones: ManagedFolder;
  readonly stacks: StacksByDigest;
  readonly templateBytes: TemplateBytes;
  readonly verified: VerifiedSnapshots;
  readonly ready: ReadySnapshots;
  readonly reads: UntilClosed;
}

export class Snapshots {
  readonly folder: ManagedFolder;
  readonly #parts: SnapshotsParts;

  constructor(parts: SnapshotsParts) {
    this.folder = parts.folder;
    this.#parts = parts;
  }

  async take(
    vm: VmId,
    name: string,
    others: readonly string[],
    refuseInUse: boolean,
    { signal, onProgress }: Watcher,
  ): Promise<NewSnapshot> {
    const path = this.pathOf(name);
    const task = new Task(`making snapshot ${path} of VM ${vm.safe}`, signal);
    requireNames(others);
    try {
      await this.refuseOtherSpelling(name);
      if (!(await isMissing(path))) throw snapshotExistsError(path);
      const request = { refuseInUse, templateBytes: this.#parts.templateBytes, signal: task.signal };
      // The default folder is inside the clones folder, which is created when it is opened.
      return await withSlotImage(this.#parts.clones, vm, request, (image, _, endTurn) =>
        withSources(image, others, (sources) =>
          this.folder.inWorkFolder('snapshot', async (staged) => {
            const copies = await copyAll(task, sources, staged);
            // The slot can be released and grown while the copies are hashed.
            closeAll(sources);
            endTurn();
            const files = await this.#describe({ task, onProgress }, sources, staged);
            const record = await this.#recordOf(vm, image, files);
            await publish(staged, path, formatManifest(record));
            await flushName(this.folder.path, path, 'remove it and take it again');
            const strategies = copies.map(({ strategy }) => strategy);
            const { extents } = copies[0] as CopiedFile;
            return {
              ...snapshotOf(name, path, record),
              strategies,
              ...(extents === undefined ? {} : { extents }),
            };
          }),
        ),
      );
    } catch (error) {
      throw asRootfsError(task.what, error);
    }
  }

  /** Rejects with `CLOSED` if this is closed and there is so much to hash that nobody can wait for it. */
  async #describe(
    { task, onProgress }: Watched,
    sources: readonly SnapshotSource[],
    staged: string,
  ): Promise<SnapshotFile[]> {
    const sizeBytes = totalBytes({ files: sources.map(({ identity }) => identity) });
    const describe = (each: Task) =>
      hashing.run(each, sizeBytes, () => describeCopies({ task: each, onProgress }, sources, staged));
    return sizeBytes <= MINUTES_BYTES ? describe(task) : this.#parts.reads.run(task, describe);
  }

  async #recordOf(vm: VmId, image: SlotImage, files: readonly SnapshotFile[]): Promise<SnapshotRecord> {
    const { sourceSha256, sizeStamp, state } = image;
    const stack = state.stack || (await this.#parts.stacks.firstWith(sourceSha256));
    return { vmId: vm.raw, stack, sourceSha256, sizeStamp, createdAt: new Date().toISOString(), files };
  }

  /** Lists the complete snapshots, in no order. */
  async *list(): AsyncGenerator<Snapshot, void, undefined> {
    const task = new Task(`listing snapshots in ${this.folder.path}`, undefined);
    const failures = new Failures(task);
    let names: string[];
    try {
      names = await namesIn(this.folder.path, isPlainName);
    } catch (error) {
      throw asRootfsError(task.what, error);
    }
    for (const name of names) {
      const path = this.pathOf(name);
      const read = () => readOwnFile(join(path, SNAPSHOT_MANIFEST_FILE), SNAPSHOT_MANIFEST_BYTES_LIMIT);
      const manifest =
        name === LOST_AND_FOUND ? await read().catch(() => undefined) : await failures.attempt(path, read);
      const record = parseManifest(manifest ?? '');
      if (record !== undefined) yield snapshotOf(name, path, record);
    }
    // What cannot be read hides no other snapshot.
    failures.throwIfAny();
  }

  /**
   * Runs `work` with the snapshot's open files, which are verified first. Rejects with `SOURCE_CHANGED` if somebody
   * wrote to one of them meanwhile.
   */
  async read<T>(name: string, watched: Watched, work: (open: OpenSnapshot) => Promise<T>): Promise<T> {
    const path = this.pathOf(name);
    await this.refuseOtherSpelling(name);
    return withSnapshot(path, async (open) => {
      await this.#parts.verified.verify(path, open.record, open.sources, watched);
      const result = await work(open);
      for (const { source, info } of open.sources)
        await requireUnchanged(watched.task.what, source, info.identity);
      return result;
    });
  }

  /**
   * The snapshot, if its manifest has this digest. Undefined if there is none of that name. Reads no other file.
   * Rejects with `SNAPSHOT_EXISTS` if it is another one.
   */
  async find(name: string, manifestSha256: string): Promise<Snapshot | undefined> {
    const path = this.pathOf(name);
    await this.refuseOtherSpelling(name);
    if (await isMissing(path)) return undefined;
    return withSnapshot(path, async ({ text, record }) => {
      if (native().sha256(text) !== manifestSha256) throw snapshotExistsError(path);
      return snapshotOf(name, path, record);
    }).catch(unlessMissing);
  }

  /**
   * Publishes the files that lie in `staged`, flushed and read-only, once they have the digests of the manifest.
   * Rejects with `SNAPSHOT_CORRUPT`, `SNAPSHOT_EXISTS`.
   */
  async publish(name: string, { text, record }: SnapshotManifest, staged: string, watched: Watched) {
    const path = this.pathOf(name);
    const sources = await openFiles(staged, record);
    try {
      await verifyAll(staged, record, sources, watched);
      watched.task.checkAborted();
      await publish(staged, path, text);
      await flushName(this.folder.path, path, 'remove it and pull it again');
      // So that the first restore need not read them again.
      await this.#parts.verified.remember(path, record, sources);
      return snapshotOf(name, path, record);
    } finally {
      closeAll(sources);
    }
  }

  /** Opens, and if need be makes, the folder of snapshots. The default one is inside the clones folder. */
  inFolder<T>(work: () => Promise<T>): Promise<T> {
    return this.#parts.clones.use(() => this.folder.use(work));
  }

  /** Reads every file again. */
  async verify(name: string, { signal, onProgress }: Watcher): Promise<Snapshot> {
    const path = this.pathOf(name);
    const task = new Task(`verifying snapshot ${path}`, signal);
    try {
      await this.refuseOtherSpelling(name);
      return await this.#parts.reads.run(task, (own) =>
        hashing.run(own, 0, (limitBytes) =>
          withSnapshot(path, async ({ record, sources }) => {
            requireAtMost(limitBytes, totalBytes(record));
            await verifyAll(path, record, sources, { task: own, onProgress });
            return snapshotOf(name, path, record);
          }),
        ),
      );
    } catch (error) {
      throw asRootfsError(task.what, error);
    }
  }

  /** False if there was none, or another call removed it first: then one that was taken since stays. */
  async remove(name: string): Promise<boolean> {
    const path = this.pathOf(name);
    const task = new Task(`removing snapshot ${path}`, undefined);
    try {
      await this.refuseOtherSpelling(name);
      return await removing.run(task, () => this.#removeOpened(task, name, path));
    } catch (error) {
      throw asRootfsError(task.what, error);
    }
  }

  async #removeOpened({ what }: Task, name: string, path: string): Promise<boolean> {
    let opened: HeldSnapshot | undefined;
    try {
      opened = await openSnapshotFolder(path);
      if (opened === undefined) return false;
      const request = { slot: name, snapshotFd: opened.folder.fd };
      // A full disk is what makes people remove snapshots.
      const { status } = await this.folder.use(
        ({ handle }) => releaseUnlessBusy(path, handle, request),
        'no-staging',
      );
      if (status === 'busy') throw slotBusyError(what, path, 'the snapshot');
      if (status !== 'released') return false;
      this.#parts.verified.forget(path);
      this.#parts.ready.dropRemoved(path, opened.record);
      this.folder.sweepInBackground();
      return true;
    } finally {
      await opened?.folder.close();
    }
  }

  async drain(): Promise<void> {
    await this.folder.drain();
  }

  async close(): Promise<void> {
    await this.folder.close();
  }

  /** Rejects with `SNAPSHOT_NAME_COLLISION` if the name is that of another snapshot on this disk. */
  async refuseOtherSpelling(name: string): Promise<void> {
    const spelled = await otherSpelling(this.folder.path, name);
    if (spelled === undefined) return;
    const path = `${this.folder.path}/${name}`;
    throw new RootfsError(
      'SNAPSHOT_NAME_COLLISION',
      `${path} is the snapshot ${show(spelled)}: this file system treats both names as the same; use that ` +
        'spelling, or another name',
      { path },
    );
  }

  /** Throws `INVALID_SNAPSHOT_NAME`. */
  pathOf(name: unknown): string {
    if (isPath(name) && isPlainName(name)) return `${this.folder.path}/${name}`;
    throw new RootfsError(
      'INVALID_SNAPSHOT_NAME',
      `invalid snapshot name ${show(name)}: it must be the name of a folder, of at most ${NAME_BYTES_LIMIT} ` +
        'bytes, without "/", "\\", control characters or a leading dot',
    );
  }
}

function snapshotOf(name: string, path: string, record: SnapshotRecord): Snapshot {
  return { name, path, ...factsOf(record) };
}
