// Remembers which snapshots were verified. The digest of each file is stored by the file's identity, like a template's,
// so later restores in any process need not read the files again. This process also keeps whole snapshots in memory, so
// that a restore takes a single native call.

import { basename, join } from 'node:path';
import { native, type OpenedSource } from '../addon/native.js';
import type { LocatedFile } from '../catalog/digest-record.js';
import type { DigestStore } from '../catalog/digest-store.js';
import { msUntilDistinctTime } from '../image/file-times.js';
import { dropOldest } from '../system/drop-oldest.js';
import type { Progress } from '../system/long-work.js';
import { withController } from '../system/on-abort.js';
import { SingleFlight } from '../system/single-flight.js';
import { requireAtMost } from '../system/turns-by-size.js';
import type { UntilClosed } from '../system/until-closed.js';
import { withSnapshot } from './open-snapshot.js';
import { hashing, verifyAll, type Watched } from './snapshot-files.js';
import { formatManifest, type SnapshotRecord, totalBytes } from './snapshot-manifest.js';

// Each takes a few hundred bytes.
const LIMIT = 4096;

export interface VerifiedSnapshot {
  readonly name: string;
  readonly manifestSha256: string;
  readonly record: SnapshotRecord;
  /** As they were verified, in the order of the record. */
  readonly files: readonly LocatedFile[];
}

export class VerifiedSnapshots {
  readonly #digests: DigestStore;
  readonly #reads: UntilClosed;
  readonly #known = new Map<string, VerifiedSnapshot>();
  readonly #underWay = new SingleFlight<VerifiedSnapshot>();
  /** The callbacks of those who wait for one. */
  readonly #reports = new Map<string, Set<(progress: Progress) => void>>();

  constructor(digests: DigestStore, reads: UntilClosed) {
    this.#digests = digests;
    this.#reads = reads;
  }

  /** What was verified under this path. Before the disk is cloned, every file must be compared with its identity. */
  remembered(path: string): VerifiedSnapshot | undefined {
    return this.#known.get(path);
  }

  forget(path: string): void {
    this.#known.delete(path);
  }

  /** Once for all who ask at the same time. What the callback of one throws ends that call alone. */
  async verifyOnce(path: string, { task, onProgress }: Watched): Promise<VerifiedSnapshot> {
    let thrown: { readonly error: unknown } | undefined;
    return withController(task.signal, async (own) => {
      const report = (progress: Progress) => {
        try {
          onProgress?.(progress);
        } catch (error) {
          thrown ??= { error };
          own.abort(error);
        }
      };
      const reports = this.#reports.get(path) ?? new Set();
      this.#reports.set(path, reports.add(report));
      try {
        const reportAll = (progress: Progress) => {
          for (const each of reports) each(progress);
        };
        // It may outlive the call of whoever was aborted.
        return await this.#underWay.join(path, task.endedBy(own.signal), (shared) =>
          this.#reads.run(shared, (each) => this.#verifyInTurn(path, { task: each, onProgress: reportAll })),
        );
      } catch (error) {
        throw thrown === undefined ? error : thrown.error;
      } finally {
        reports.delete(report);
        if (reports.size === 0) this.#reports.delete(path);
      }
    });
  }

  #verifyInTurn(path: string, watched: Watched): Promise<VerifiedSnapshot> {
    return hashing.run(watched.task, 0, (limitBytes) =>
      withSnapshot(path, ({ record, sources }) => this.verify(path, record, sources, watched, limitBytes)),
    );
  }

  /** Reads the files if a digest is not known. Rejects with `SNAPSHOT_CORRUPT`. In turns: see {@link requireAtMost}. */
  async verify(
    path: string,
    record: SnapshotRecord,
    sources: readonly OpenedSource[],
    watched: Watched,
    limitBytes = Number.POSITIVE_INFINITY,
  ): Promise<VerifiedSnapshot> {
    const files = sources.map((opened, i) => located(path, record, i, opened));
    const digests = await this.#digests.get(files);
    const isKnown = record.files.every(({ sha256 }, i) => digests[i] === sha256);
    if (!isKnown) {
      requireAtMost(limitBytes, totalBytes(record));
      await verifyAll(path, record, sources, watched);
      await this.remember(path, record, sources);
    }
    const verified = { name: basename(path), manifestSha256: manifestSha256Of(record), record, files };
    if (sources.every(showsLaterWrites)) {
      this.#known.delete(path);
      this.#known.set(path, verified);
      dropOldest(this.#known, LIMIT);
    }
    return verified;
  }

  /**
   * Files with the digests of the record. Snapshots are flushed when they are made, so if a digest survives a power
   * cut, its data does too.
   */
  async remember(path: string, record: SnapshotRecord, sources: readonly OpenedSource[]): Promise<void> {
    for (const [i, opened] of sources.entries()) {
      const sha256 = record.files[i]?.sha256 as string;
      if (showsLaterWrites(opened)) await this.#digests.put(located(path, record, i, opened), sha256);
    }
  }
}

/** The same for the same snapshot alone. */
export function manifestSha256Of(record: SnapshotRecord): string {
  return native().sha256(formatManifest(record));
}

/** Whether a later write is certain to change the file's identity. */
function showsLaterWrites({ info, filesystem, openForWriting }: OpenedSource): boolean {
  return !openForWriting && msUntilDistinctTime(info.identity, filesystem) === 0;
}

function located(
  path: string,
  { files }: SnapshotRecord,
  index: number,
  { info, filesystem }: OpenedSource,
): LocatedFile {
  return { path: join(path, files[index]?.name ?? ''), identity: info.identity, filesystem };
}
