// A folder with our `.microvm-rootfs` in it: the clones folder, the catalog, the folder of snapshots. It is opened when
// first needed, opened again if it was moved or replaced, and swept in the background.
//
// Who may delete what in it: trash, anybody; a session's staging folder, whoever can take its flock; a slot, whoever
// holds the lock on its name and sees the folder that was judged; a sealed image or a ready slot, any process, by a
// rename. The head of native/slot/managed_folder.h has the rules whole.

import { rename, rm } from 'node:fs/promises';
import { relative } from 'node:path';
import { type NativeFolder, native } from '../addon/native.js';
import { asRootfsError, closedError, failedWith, isSystemError } from '../system/errors.js';
import { makeFolders } from '../system/make-folders.js';
import { STAGING_FOLDER, STATE_FOLDER, TRASH_FOLDER } from '../system/state-folder.js';
import { Task } from '../system/task.js';
import { CopyFlusher, flushCopiedSlots } from './flush-copies.js';
import { closeFolder, hasStaging, noStagingError, type OpenFolder, openFolder } from './open-folder.js';
import { type SweepCounts, sweepFolder } from './sweep-folder.js';

// In the background a sweep rests half of the time, so that clones get the disk.
const SWEEP_REST_MS_LIMIT = 50;

/**
 * On a disk that is full or read-only there may be no folder in staging. Without one, slots can still be looked at, and
 * on a full disk released.
 */
export type Needs = 'staging' | 'no-staging';

// If the folder is replaced more often than this, something is wrong.
const REOPEN_LIMIT = 3;

export class ManagedFolder {
  /** Without a trailing slash. */
  readonly path: string;
  /** Our own folder in it. */
  readonly statePath: string;
  #opening: Promise<OpenFolder> | undefined;
  #open: OpenFolder | undefined;
  #swept = false;
  #works = 0;
  #background: Promise<void> | undefined;
  #sweepAgain = false;
  #sweepWarning: string | undefined;
  readonly #copyFlusher = new CopyFlusher((slots) => this.#flushCopies(slots));
  /** Removed by background sweeps since the last report. */
  #sweptBefore: SweepCounts = { stagingRemoved: 0, trashRemoved: 0 };
  #closed = false;
  #closing: Promise<void> | undefined;
  #users = 0;
  #idle: (() => void) | undefined;
  /** Handles of folders that were replaced. Work may still use one; when none does, its collection closes it. */
  #forgotten: WeakRef<NativeFolder>[] = [];
  readonly #listeners: (() => Promise<void>)[] = [];
  readonly #usedListeners: (() => void)[] = [];
  readonly #idleListeners: ((folder: OpenFolder) => Promise<void>)[] = [];

  readonly #what: string;

  readonly #beforeOpened: () => Promise<void>;

  /** `what` names the kind of folder in messages. `beforeOpened` can keep it from being opened, or made, at all. */
  constructor(path: string, what = 'clones folder', beforeOpened = async () => {}) {
    this.#what = what;
    this.#beforeOpened = beforeOpened;
    this.path = path.replace(/(?<=.)\/+$/, '');
    this.statePath = `${this.path}/${STATE_FOLDER}`;
  }

  /**
   * Runs `work` with the open folder. If the path turns out to name another folder, opens that and runs `work` again.
   */
  async use<T>(work: (folder: OpenFolder) => Promise<T>, needs: Needs = 'staging'): Promise<T> {
    // Counted before the folder is open, so that close() waits for it.
    this.#users++;
    try {
      for (let attempt = 1; ; attempt++) {
        const folder = await this.#ensureOpen();
        if (needs === 'staging' && !hasStaging(folder)) {
          // Others may still release slots by it.
          this.#forget(folder);
          if (!hasStaging(await this.#ensureOpen())) throw await noStagingError(this.#what, this.path);
          continue;
        }
        try {
          return await work(folder);
        } catch (error) {
          if (attempt >= REOPEN_LIMIT || !this.isStale(error)) {
            this.sweepAfter(error);
            throw error;
          }
          this.#forget(folder);
        }
      }
    } finally {
      this.#users--;
      this.used();
      if (this.#users === 0) this.#idle?.();
    }
  }

  /** Opens the folder. Call it before doing much in it: a folder that cannot be opened is then one error, not many. */
  async open(): Promise<void> {
    await this.use(async () => {}, 'no-staging');
  }

  /** Whether files in the folder can share blocks; undefined if that could not be found out this time either. */
  reflinks(): Promise<boolean | undefined> {
    return this.use(async (folder) => {
      folder.reflinks ??= await native().probeReflink(folder.handle);
      return folder.reflinks;
    });
  }

  /** Adds work to be done each time that the folder is opened, before it is used. */
  onOpened(listener: () => Promise<void>): void {
    this.#listeners.push(listener);
  }

  /** Adds work to be done after each use of the folder and after each sweep. */
  onUsed(listener: () => void): void {
    this.#usedListeners.push(listener);
  }

  /** Adds work to be done before the folder is closed, and by {@link drain}. */
  onIdle(listener: (folder: OpenFolder) => Promise<void>): void {
    this.#idleListeners.push(listener);
  }

  /** Calls the listeners of {@link onUsed}. For those who work in the folder without {@link use}. */
  used(): void {
    for (const listener of this.#usedListeners) listener();
  }

  /** The folder, if it is open. */
  get opened(): OpenFolder | undefined {
    return this.#closed || this.#open === undefined || !hasStaging(this.#open) ? undefined : this.#open;
  }

  /** Whether an error means that the path now names another folder, or that our own folder in it was removed. */
  isStale(error: unknown): boolean {
    if (failedWith(error, 'ESTALE')) return true;
    if (!failedWith(error, 'ENOENT') || !isSystemError(error)) return false;
    const ours = this.statePath;
    return (error.path?.startsWith(ours) ?? false) || (error.dest?.startsWith(ours) ?? false);
  }

  /**
   * Empties the trash and removes what dead processes left in staging. What was removed is added to `counts`, also if
   * the call rejects, and so is what background sweeps removed in staging.
   */
  async sweep(counts: SweepCounts, signal?: AbortSignal): Promise<void> {
    const task = new Task(`sweeping ${this.path}`, signal);
    try {
      await this.use(({ handle }) => sweepFolder(task, handle, 0, counts), 'no-staging');
    } finally {
      await this.#background;
      counts.stagingRemoved += this.#sweptBefore.stagingRemoved;
      this.#sweptBefore = { stagingRemoved: 0, trashRemoved: 0 };
    }
  }

  /** Starts a sweep in the background, or another one after the one that is running. */
  sweepInBackground(): void {
    if (this.#background !== undefined) {
      this.#sweepAgain = true;
      return;
    }
    this.#background = this.#sweepOpened()
      .catch((error) => {
        const { message } = asRootfsError(`sweeping ${this.path}`, error) as Error;
        // What cannot be removed fails each sweep in the same way.
        if (message === this.#sweepWarning) return;
        this.#sweepWarning = message;
        process.emitWarning(`emptying trash: ${message}`, { code: 'MICROVM_ROOTFS_SWEEP' });
      })
      .finally(() => {
        this.#background = undefined;
        this.used();
        if (this.#sweepAgain && !this.#closed) {
          this.#sweepAgain = false;
          this.sweepInBackground();
        }
      });
  }

  /** A failed operation may have left something in the trash, and no later release may come to empty it. */
  sweepAfter(error: unknown): void {
    if (isSystemError(error)) this.sweepInBackground();
  }

  /** Sweeps the folder if it is open. Never opens or creates it. */
  async #sweepOpened(): Promise<void> {
    const folder = this.#open;
    if (folder === undefined) return;
    try {
      const task = new Task(`sweeping ${this.path}`, undefined);
      await sweepFolder(task, folder.handle, SWEEP_REST_MS_LIMIT, this.#sweptBefore);
    } catch (error) {
      if (!this.isStale(error)) throw error;
    }
  }

  /** Runs `work` with a new folder in staging, and removes what is left of it afterwards. */
  inWorkFolder<T>(kind: string, work: (path: string, folder: OpenFolder) => Promise<T>): Promise<T> {
    return this.use(async (folder) => {
      const path = `${folder.sessionPath}/${kind}-${++this.#works}`;
      await makeFolders(path, 0o700);
      try {
        return await work(path, folder);
      } finally {
        await this.discard(path);
      }
    });
  }

  /**
   * Removes a folder of this process in staging. What cannot be removed now goes into trash, and never hides the
   * outcome of the work.
   */
  async discard(path: string): Promise<void> {
    try {
      await rm(path, { recursive: true, force: true });
    } catch {
      // Nothing sweeps the staging of a process that lives.
      const name = relative(`${this.statePath}/${STAGING_FOLDER}`, path).replaceAll('/', '-');
      // Else it goes when the process ends.
      await rename(path, `${this.statePath}/${TRASH_FOLDER}/${name}`).catch(() => {});
      this.sweepInBackground();
    }
  }

  /** Flushes a slot that was just copied, behind the caller's back. */
  flushInBackground(slot: string): void {
    this.#copyFlusher.add(slot);
  }

  async #flushCopies(slots: readonly string[]): Promise<void> {
    const folder = this.#open;
    if (folder === undefined) return;
    const task = new Task(`flushing copied slots in ${this.path}`, undefined);
    try {
      await flushCopiedSlots(task, folder.handle, slots);
    } catch (error) {
      if (this.isStale(error)) return;
      const { message } = asRootfsError(task.what, error) as Error;
      process.emitWarning(message, { code: 'MICROVM_ROOTFS_UNSETTLED' });
    }
  }

  /** When no sweep is running or due, every copied slot is flushed, and the listeners of {@link onIdle} are done. */
  async drain(): Promise<void> {
    while (this.#background !== undefined) await this.#background;
    await this.#copyFlusher.drain();
    const folder = this.#open;
    if (folder === undefined || !hasStaging(folder)) return;
    for (const listener of this.#idleListeners) await listener(folder);
  }

  close(): Promise<void> {
    this.#closing ??= this.#end();
    return this.#closing;
  }

  async #end(): Promise<void> {
    this.#closed = true;
    if (this.#users > 0) {
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
    }
    await this.drain();
    // What is left of a replaced folder may be gone altogether.
    for (const ref of this.#forgotten) await closeFolder(ref.deref()).catch(() => undefined);
    const folder = this.#open;
    this.#open = undefined;
    try {
      await closeFolder(folder?.handle);
    } catch (error) {
      throw asRootfsError(`closing ${this.path}`, error);
    }
  }

  #ensureOpen(): OpenFolder | Promise<OpenFolder> {
    if (this.#closed) throw closedError();
    if (this.#open !== undefined) return this.#open;
    this.#opening ??= this.#beforeOpened()
      .then(() => openFolder(this.path, this.#what))
      .then(async (folder) => {
        this.#open = folder;
        for (const listener of this.#listeners) await listener();
        if (!this.#swept) this.sweepInBackground();
        this.#swept = true;
        return folder;
      })
      .finally(() => {
        this.#opening = undefined;
      });
    return this.#opening;
  }

  #forget(folder: OpenFolder): void {
    if (this.#open !== folder) return;
    this.#open = undefined;
    this.#forgotten = this.#forgotten.filter((ref) => ref.deref() !== undefined);
    this.#forgotten.push(new WeakRef(folder.handle));
  }
}
