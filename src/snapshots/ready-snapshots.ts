// Ready slots of snapshots, in the pool beside those of templates. One holds the disk of the snapshot and its stamps;
// the other files of a snapshot are never copied. Whoever takes it compares all files of the snapshot first.

import { basename, join } from 'node:path';
import type { LocatedFile } from '../catalog/digest-record.js';
import type { Pool } from '../clone/pool.js';
import { type PoolKey, type PoolSource, readyName, readyStrategy } from '../clone/pool-files.js';
import type { MakeReady } from '../clone/pooled-kind.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import type { OwnerAndMode } from '../image/owner-and-mode.js';
import { type MadeSlot, newReadySlot, type ReadySlot, type SlotContents } from '../slot/new-slot.js';
import { CLONE_ROOTFS_FILE } from '../slot/stamps.js';
import { Task } from '../system/task.js';
import type { SnapshotRecord } from './snapshot-manifest.js';
import { manifestSha256Of, type VerifiedSnapshot } from './verified-snapshots.js';

export interface ReadyRequest extends OwnerAndMode {
  readonly count: number;
  readonly signal: AbortSignal | undefined;
}

export class ReadySnapshots {
  readonly #clones: ManagedFolder;
  readonly #pool: Pool;
  #made = 0;

  constructor(clones: ManagedFolder, pool: Pool) {
    this.#clones = clones;
    this.#pool = pool;
  }

  /** `make` takes a ready slot by a rename, if there is one and it is still there. */
  async lend(key: PoolKey, make: (ready: ReadySlot | undefined) => Promise<MadeSlot>): Promise<MadeSlot> {
    const name = this.#take(key);
    if (name === undefined) return make(undefined);
    try {
      const made = await make({ name, strategy: readyStrategy(name) });
      if (!made.pooled) this.#pool.missed(key);
      return made;
    } catch (error) {
      this.#pool.giveBack(key, name);
      throw error;
    }
  }

  #take(key: PoolKey): string | undefined {
    if (this.#pool.isEmpty) return undefined;
    this.#pool.dropOthers(key.template);
    return this.#pool.take(key);
  }

  /** Rejects with `TEMPLATE_CHANGED` if the snapshot is removed meanwhile. */
  async keep(
    snapshot: VerifiedSnapshot,
    { count, owner, mode, signal }: ReadyRequest,
    contents: SlotContents,
    renew: (isWanted: () => boolean) => Promise<void>,
  ): Promise<void> {
    const key = readyKey(snapshot, { owner, mode });
    const id = JSON.stringify([owner?.uid, owner?.gid, mode]);
    // The disk may have got another owner or mode since it was verified first.
    const make: MakeReady = ({ template: { identity } }, prefix, each) =>
      this.#make({ ...contents, from: { ...contents.from, identity } }, prefix, each);
    await this.#pool.keep(key, { id, count, make, renew }, signal);
  }

  #make(contents: SlotContents, prefix: string, signal: AbortSignal | undefined): Promise<string> {
    const task = new Task(`making a ready slot of ${contents.from.path}`, signal);
    return this.#clones.use((folder) =>
      newReadySlot(task, folder, contents, (strategy) =>
        readyName(prefix, strategy, `${basename(folder.sessionPath)}-${this.#made++}`),
      ),
    );
  }

  /** Discards those of all processes. */
  dropRemoved(folder: string, record: SnapshotRecord): void {
    const removed = { name: basename(folder), manifestSha256: manifestSha256Of(record), record };
    this.#pool.drop(sourceOf(join(folder, CLONE_ROOTFS_FILE), removed), true);
  }
}

export function readyKey(snapshot: VerifiedSnapshot, { owner, mode }: OwnerAndMode): PoolKey {
  const { path, identity } = diskOf(snapshot);
  const template = { ...sourceOf(path, snapshot), identity };
  return { template, grownTo: snapshot.record.sizeStamp, owner, mode };
}

function diskOf({ files }: VerifiedSnapshot): LocatedFile {
  return files[0] as LocatedFile;
}

function sourceOf(
  path: string,
  {
    name,
    manifestSha256,
    record: { sourceSha256, stack },
  }: Pick<VerifiedSnapshot, 'name' | 'manifestSha256' | 'record'>,
): Omit<PoolSource, 'identity'> {
  return { path, sha256: sourceSha256, snapshot: { name, stack, manifestSha256 } };
}
